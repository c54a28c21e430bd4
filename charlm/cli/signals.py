"""Signals that ask a verb or a loop to stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from charlm.launch import is_one_of_several


@contextmanager
def collected(*names: str) -> Iterator[list[int]]:
    """Collect the first signal of these names in a list. A second one ends the process at once.

    The first signal does not raise a KeyboardInterrupt: that could stop a library between any two
    of its lines, for example while it has a lock.
    """
    received: list[int] = []
    with _first(names, received.append):
        yield received


@contextmanager
def interrupted(received: list[int]) -> Iterator[None]:
    """Let the first signal interrupt what is done inside, so that its temporary files are removed.

    It is added to the list. SIGINT then raises KeyboardInterrupt, and SIGTERM or SIGHUP SystemExit.
    A second one ends the process at once. If several processes train together, only SIGINT is
    handled here: a process that waits for another one is in C code, where Python calls no handler.
    So SIGTERM and SIGHUP keep their usual effect, which is to end it.
    """

    def interrupt(number: int) -> None:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    def end(unraisable: sys.UnraisableHookArgs) -> None:
        if received and isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit):
            os._exit(128 + received[0])  # it came in a callback, which ignores exceptions
        usual(unraisable)

    names = ("SIGINT",) if is_one_of_several() else ("SIGINT", "SIGTERM", "SIGHUP")
    usual = sys.unraisablehook
    try:
        with _first(names, interrupt):
            sys.unraisablehook = end
            yield
    finally:
        sys.unraisablehook = usual


@contextmanager
def each_interrupts() -> Iterator[None]:
    """Let every SIGINT raise KeyboardInterrupt, not only the first one, unless it is ignored."""
    usual = signal.getsignal(signal.SIGINT)
    try:
        if usual is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def _first(names: tuple[str, ...], then: Callable[[int], None]) -> Iterator[None]:
    """Call `then` for the first signal of these names. A second signal ends the process at once.

    A second SIGHUP is ignored: when a terminal is closed, the system and the shell both send one.
    Signals that arrive together, before Python handles the first, count as one. A signal that this
    system does not have, or that is ignored, stays as it is.
    """
    has_received = False
    usual = {
        number: handler
        for name in names
        if (number := getattr(signal, name, None)) is not None
        and (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def receive(number: int, _frame: object) -> None:
        nonlocal has_received
        if has_received:
            return
        has_received = True
        # Python now calls this function for all that have arrived. A signal that it has not handled
        # when its handler is removed would be an OSError on standard error.
        signal.raise_signal(number)
        for each in usual:
            is_hangup = each == getattr(signal, "SIGHUP", None)
            signal.signal(each, signal.SIG_IGN if is_hangup else signal.SIG_DFL)
        then(number)

    try:
        for number in usual:
            signal.signal(number, receive)
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
