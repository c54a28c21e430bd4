"""The program `charlm`, also as `python -m charlm`."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def run() -> int:
    """Run `charlm`; returns the exit status.

    Ctrl-C ends the process at once, without a traceback, while Python imports the command line and
    while it exits. In between, `main` handles it. If it is ignored, it stays so.
    """
    ends = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ends:
        signal.signal(signal.SIGINT, _end)
    from charlm.cli import main
    from charlm.launch import is_one_of_several

    try:
        status = main()
    except Exception:
        if not is_one_of_several():
            raise
        sys.excepthook(*sys.exc_info())
        status = 1
    finally:
        if ends:  # also where Python does not call a function any more
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    if is_one_of_several():
        end_at_once(status)
    return status


def _end(number: int, _frame: object) -> NoReturn:
    """End this process, which has nothing to save or to remove yet."""
    with suppress(OSError):  # it is closed
        os.write(2, b"\n")
    os._exit(128 + number)


def end_at_once(status: int) -> NoReturn:
    """End this process without taking Python down.

    A thread of torch.distributed can abort a process while Python is taken down ("terminate
    called without an active exception", twice in some thousand ends).
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # it is closed
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    raise SystemExit(run())
