"""Checks of the arguments of the library. The messages name them as Python does."""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar

from charlm.visible import visible

P = ParamSpec("P")
R = TypeVar("R")
logger = logging.getLogger("charlm")


def notify(line: str) -> None:
    """Log a line that the user should read, as a warning of the logger `charlm`."""
    logger.warning("%s", visible(line))


def text(name: str, value: Any) -> str:
    """The value, which must be a string.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}= should be a string, not {type(value).__name__}")
    return value


def integer(name: str, value: Any, least: int, most: int) -> int:
    """The value, which must be an integer of Python or NumPy within bounds.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of bounds.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name}= should be an integer, not {type(value).__name__}") from None
    if not least <= number <= most:
        shown = f"{number}" if abs(number) <= 10 * most else ""
        raise ValueError(f"{name}={shown} should be from {least:,} to {most:,}")
    return number


def one_of(name: str, value: Any, choices: Collection[str]) -> None:
    """Check that a value is one of several strings.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r:.80} should be one of {', '.join(choices)}")


def hinted(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function say what an argument of an unknown name may have meant."""
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        refuse_unknown(function.__name__, named, known)
        return function(*args, **named)

    return call


def refuse_unknown(function: str, given: Mapping[str, object], known: Collection[str]) -> None:
    """Check the names of keyword arguments, as Python does for a function without `**`.

    Raises:
        TypeError: a name is not known.
    """
    for name, value in given.items():
        if name not in known:
            meant = _meant(name, value, known)
            hint = f"; did you mean {meant}?" if meant else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")


def _meant(name: str, value: object, known: Collection[str]) -> str:
    """An argument of a similar name, or one that sets the setting of this name."""
    if close := difflib.get_close_matches(name, known, 1, cutoff=0.8):
        return f"{close[0]}="
    if "set" in known:
        from charlm.config.elsewhere import setting_named  # slow to import

        if key := setting_named(name):
            return f"set={{{key!r}: {value!r:.40}}}"
    close = difflib.get_close_matches(name, known, 1)
    return f"{close[0]}=" if close else ""
