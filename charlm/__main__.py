"""The program `charlm`, also as `python -m charlm`."""

from __future__ import annotations

import signal


def run() -> int:
    """Run `charlm`; returns the exit status.

    Ctrl-C ends the process at once, without a traceback, while Python imports the command line and
    while it exits. In between, `main` handles it. If it is ignored, it stays so.
    """
    usual = signal.getsignal(signal.SIGINT)
    at_the_edges = signal.SIG_DFL if usual is signal.default_int_handler else usual
    signal.signal(signal.SIGINT, at_the_edges)
    from charlm.cli import main

    signal.signal(signal.SIGINT, usual)
    try:
        return main()
    finally:
        signal.signal(signal.SIGINT, at_the_edges)


if __name__ == "__main__":
    raise SystemExit(run())
