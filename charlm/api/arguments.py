"""Checks of the arguments of the library. The messages name them as Python does."""

from __future__ import annotations

import difflib
import logging
import operator
from collections.abc import Collection, Iterable
from typing import Any

from charlm.visible import visible

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


def refuse_unknown(function: str, given: Iterable[str], known: Collection[str]) -> None:
    """Check the names of keyword arguments, as Python does for a function without `**`.

    Raises:
        TypeError: a name is not known.
    """
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}=?" if close else ""
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{hint}")
