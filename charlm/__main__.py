"""`python -m charlm` is the same as `charlm`."""

from charlm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
