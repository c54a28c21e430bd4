"""Features of a text that a network may keep track of, computed from the text alone.

Each feature is a function from a text of N characters to an array (N,), boolean or real. The value
at position t describes the text after character t is read: at an opening quotation mark the reader
is inside the quotes, at the closing one outside again. Some features look ahead: a quotation, a tag
or a bracket counts only if it is closed, and `characters left in line` counts to the next line end.
The rules are simple, and the same for prose, markup and code. They accept every text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Feature:
    """A feature of a text of N characters.

    Attributes:
        values: (N,).
        structure: whether it is one of `structure.read_structure`.
    """

    name: str
    values: Bools | Reals
    structure: bool = False

    @property
    def is_real(self) -> bool:
        return self.values.dtype != np.bool_


def read_features(text: str) -> list[Feature]:
    """The features of any text. If several have the same values, only the first."""
    return distinct(Feature(name, compute(text)) for name, compute in FEATURES.items())


def distinct(features: Iterable[Feature]) -> list[Feature]:
    """The features without those that have the same values as an earlier one."""
    kept: list[Feature] = []
    for feature in features:
        if not any(np.array_equal(feature.values, other.values) for other in kept):
            kept.append(feature)
    return kept


# --- quotes and comments ---------------------------------------------------------------------

# One expression for all kinds, so that a quotation mark in a comment opens no quotation, and a
# comment sign in quotes opens no comment. A quotation between two " contains no empty line. An
# apostrophe inside or at the end of a word opens no quotation.
_SPANS = re.compile(
    r"""
      (?P<double>  \"{3}[\s\S]*?\"{3} | “[^“”]{0,5000}” | «[^«»]{0,5000}»
                 | "(?:\\. | [^"\\\n] | \n(?![ \t]*\n))*" )
    | (?P<single>  '{3}[\s\S]*?'{3} | (?<!\w)'(?=\S)(?:\\.|[^'\\\n]|(?<=\w)'(?=\w))*(?<=\S)'(?!\w)
                 | (?<!\w)‘(?:[^‘’\n]|(?<=\w)’(?=\w)){1,500}’ )
    | (?P<comment> \#(?=[ !:\#]).* | /\*[\s\S]*?\*/ | <!--[\s\S]*?-->
                 | (?:^[ \t]*|(?<=[;{}])[ \t]*)//.* )
    """,
    re.VERBOSE | re.MULTILINE,
)


def _inside(text: str, *kinds: str) -> Bools:
    """True from the opening of a span of these kinds until just before it closes."""
    found = [match for match in _SPANS.finditer(text) if match.lastgroup in kinds]
    return _covered(text, ((it.start(), it.end() - (it.lastgroup != "comment")) for it in found))


def in_url(text: str) -> Bools:
    """Inside a web address."""
    urls = re.finditer(r"(?:https?|ftp)://[^\s<>\"']+|\bwww\.[^\s<>\"']+", text)
    return _covered(text, (url.span() for url in urls))


def _covered(text: str, spans: Iterable[tuple[int, int]]) -> Bools:
    """True from the start of each span until just before its stop."""
    covered = np.zeros(len(text), np.bool_)
    for start, stop in spans:
        covered[start:stop] = True
    return covered


# --- brackets --------------------------------------------------------------------------------

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_TAG = re.compile(r"</?[A-Za-z!?][^<>]{0,1000}>")


def match_brackets(text: str) -> list[tuple[int, int]]:
    """The pairs of round, square and curly brackets, as positions (open, close).

    A bracket without a partner, as in `:)`, is ignored.
    """
    pairs: list[tuple[int, int]] = []
    open_: list[int] = []
    for position, char in enumerate(text):
        if char in _CLOSING:
            open_.append(position)
        elif char in ")]}" and (i := _partner(text, open_, char)) is not None:
            pairs.append((open_[i], position))
            del open_[i:]
    return pairs


def _partner(text: str, open_: list[int], char: str, limit: int = 20) -> int | None:
    """The index in `open_` of the last bracket that `char` closes, among the last `limit`."""
    last = reversed(range(max(0, len(open_) - limit), len(open_)))
    return next((i for i in last if _CLOSING[text[open_[i]]] == char), None)


def depth(text: str, kinds: str = "([{") -> Reals:
    """The number of open brackets of these kinds."""
    change = np.zeros(len(text) + 1)
    for opens, closes in match_brackets(text):
        if text[opens] in kinds:
            change[opens] += 1
            change[closes] -= 1
    return change.cumsum()[:-1]


def open_bracket(text: str) -> NDArray[np.int64]:
    """The position of the innermost open bracket, also at the bracket that closes it; -1 if no
    bracket is open."""
    positions = np.full(len(text), -1)
    for opens, closes in sorted(match_brackets(text)):  # outer first: inner ones overwrite them
        positions[opens + 1 : closes + 1] = opens
    return positions


def in_tag(text: str) -> Bools:
    """Inside a tag of HTML or XML."""
    return _covered(text, ((tag.start(), tag.end() - 1) for tag in _TAG.finditer(text)))


# --- lines -----------------------------------------------------------------------------------


def line_starts(text: str) -> NDArray[np.int64]:
    """The position where the line of each character begins."""
    positions = np.arange(len(text))
    begins = np.ones(len(text), np.bool_)
    begins[1:] = _line_ends(text)[:-1]
    return np.maximum.accumulate(np.where(begins, positions, 0))


def position_in_line(text: str) -> Reals:
    """Characters since the last line end."""
    length = np.arange(1.0, len(text) + 1) - line_starts(text)
    length[_line_ends(text)] = 0
    return length


def line_length(text: str) -> Reals:
    """Characters of the line so far, without its indentation."""
    return np.maximum(position_in_line(text) - indentation(text), 0)


def left_in_line(text: str) -> Reals:
    """Characters to the next line end."""
    return position_in_line(text[::-1])[::-1].copy()


def indentation(text: str) -> Reals:
    """Spaces and tabs at the start of the line, so far."""
    blanks = re.finditer(r"^[ \t]+", text, re.MULTILINE)
    leading = _covered(text, (blank.span() for blank in blanks))
    total = leading.cumsum()
    starts = line_starts(text)
    width = (total - total[starts] + leading[starts]).astype(np.float64)
    return np.where(_line_ends(text), 0.0, width)


def in_indentation(text: str) -> Bools:
    """In the spaces and tabs that begin a line."""
    position = position_in_line(text)
    return np.asarray((indentation(text) == position) & (position > 0))


def after_newline(text: str) -> Bools:
    """The first character of a line."""
    return _shifted(_line_ends(text))


def first_line(text: str) -> Bools:
    """In the first line of a paragraph."""
    starts = line_starts(text)
    first = np.array([start == 0 or text[max(0, start - 2) : start] == "\n\n" for start in starts])
    return first.astype(np.bool_) & ~_line_ends(text)


# --- words and numbers -----------------------------------------------------------------------


def start_of_word(text: str) -> Bools:
    """The first letter of a word."""
    letters = _each(text, str.isalpha)
    return letters & ~_shifted(letters)


def position_in_word(text: str) -> Reals:
    """Letters of the word so far; 0 outside a word."""
    return run_length(_each(text, str.isalpha))


def in_capitals(text: str) -> Bools:
    """In a run of capitals, from the second on."""
    return run_length(_each(text, str.isupper)) > 1


def in_number(text: str) -> Bools:
    """In a run of digits, from the second on."""
    return run_length(_each(text, str.isdecimal)) > 1


def _each(text: str, holds: Callable[[str], bool]) -> Bools:
    """Whether `holds` is True for each character."""
    return np.array([holds(char) for char in text], np.bool_)


def _line_ends(text: str) -> Bools:
    return _each(text, lambda char: char == "\n")


def _shifted(values: Bools) -> Bools:
    """The value (N,) of the previous character; False for the first."""
    previous = np.zeros(len(values), np.bool_)
    previous[1:] = values[:-1]
    return previous


def run_length(values: Bools) -> Reals:
    """The length (N,) of the run of True values that ends at each position."""
    positions = np.arange(1, len(values) + 1)
    last_false = np.maximum.accumulate(np.where(values, 0, positions))
    return (positions - last_false).astype(np.float64)


FEATURES: dict[str, Callable[[str], NDArray[Any]]] = {
    "position in line": position_in_line,
    "line length so far": line_length,
    "characters left in line": left_in_line,
    "after a newline": after_newline,
    "first line of a paragraph": first_line,
    "indentation": indentation,
    "in the indentation": in_indentation,
    "in quotes": lambda text: _inside(text, "double", "single"),
    "in double quotes": lambda text: _inside(text, "double"),
    "in single quotes": lambda text: _inside(text, "single"),
    "in a comment": lambda text: _inside(text, "comment"),
    "in brackets": lambda text: depth(text) > 0,
    "in round brackets": lambda text: depth(text, "(") > 0,
    "in square brackets": lambda text: depth(text, "[") > 0,
    "in curly brackets": lambda text: depth(text, "{") > 0,
    "in a tag": in_tag,
    "bracket depth": depth,
    "start of a word": start_of_word,
    "position in word": position_in_word,
    "in capitals": in_capitals,
    "in a number": in_number,
    "in a URL": in_url,
}
