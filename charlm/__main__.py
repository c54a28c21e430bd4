"""`python -m charlm` is `charlm`."""

from charlm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
