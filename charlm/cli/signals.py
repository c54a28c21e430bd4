"""Signals that ask a loop to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected(*names: str) -> Iterator[list[int]]:
    """Collect the signals of these names in a list. A second signal ends the process at once.

    The first signal does not raise a KeyboardInterrupt: that could stop a library between any two
    of its lines, for example while it has a lock. A second SIGHUP is ignored: when a terminal is
    closed, the system and the shell both send one. Signals that arrive together, before Python
    handles the first, count as one. A signal that this system does not have, or that is ignored,
    stays as it is.
    """
    received: list[int] = []
    usual = {
        number: handler
        for name in names
        if (number := getattr(signal, name, None)) is not None
        and (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def receive(number: int, _frame: object) -> None:
        if received:
            return
        received.append(number)
        # Python now calls this function for all that have arrived. A signal that it has not handled
        # when its handler is removed would be an OSError on standard error.
        signal.raise_signal(number)
        for each in usual:
            is_hangup = each == getattr(signal, "SIGHUP", None)
            signal.signal(each, signal.SIG_IGN if is_hangup else signal.SIG_DFL)

    for number in usual:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
