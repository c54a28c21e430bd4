"""Signals that ask a loop to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected(*names: str) -> Iterator[list[int]]:
    """Collect the signals of these names in a list. A second signal has its usual effect at once.

    A signal that this system does not have, or that is ignored, stays as it is.
    """
    received: list[int] = []
    usual = {
        number: handler
        for name in names
        if (number := getattr(signal, name, None)) is not None
        and (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def receive(number: int, _frame: object) -> None:
        received.append(number)
        restore()

    for number in usual:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()
