"""Features of the structure of any text: prose, tables, music, code, records.

They are built from what the text itself repeats, and need no knowledge of its format:

    key characters   punctuation that occurs often: what is before, between and after it in a line
    columns          the parts of a line between the key character that divides lines most evenly
    kinds of lines   lines that begin with the same two characters, or two characters of the same
                     classes
    classes          runs of characters of one class, and the distance to them
    periods          distances at which the text repeats itself, and lines of a paragraph

A value at position t describes the text after character t is read, as in `features`. Which features
a text has depends on the text alone, never on the units that are scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from charlm.insight.features import Bools, Feature, Reals, line_starts, run_length
from charlm.insight.surprisal import char_class
from charlm.visible import visible

KEYS = 4  # key characters
LINE_KINDS = 3  # of each sort
MOST_COLUMNS = 8
MIN_COUNT = 20  # of a key character, and of lines for columns
SHARE = 0.5  # of the lines that have the same number of columns
MOST_PERIODS, SHORTEST_PERIOD, LONGEST_PERIOD = 2, 4, 256
MIN_REPEATS = 6.0  # how far above the other distances a period is, in their median deviations


def read_structure(text: str) -> list[Feature]:
    """The features of the structure of a text of N characters."""
    lines = _Lines(text)
    return [
        *_of_columns(lines),
        *_of_line_kinds(lines),
        *_of_keys(lines),
        *_of_classes(lines),
        *_of_periods(text),
        *_of_paragraphs(lines),
    ]


def _feature(name: str, values: Bools | Reals) -> Feature:
    return Feature(name, values, structure=True)


class _Lines:
    """A text and its lines.

    Attributes:
        starts: (N,), where the line of each character begins.
        ends: (N,), True at each line end.
        classes: (N,), the class of each character.
        keys: the key characters, most frequent first.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = line_starts(text)
        self.ends = np.array([char == "\n" for char in text], np.bool_)
        class_of = {char: char_class(char) for char in set(text)}
        self.classes = np.array([class_of[char] for char in text], dtype=object)
        counts = Counter(char for char in text if class_of[char] == "punctuation" or char == "\t")
        self.keys = [char for char, n in counts.most_common(KEYS) if n >= MIN_COUNT]

    def count(self, key: str) -> Reals:
        """How often a character has occurred in the line so far (N,); 0 at a line end."""
        is_key = np.array([char == key for char in self.text], np.bool_)
        total = is_key.cumsum()
        before = total[self.starts] - is_key[self.starts]
        return np.where(self.ends, 0.0, total - before)

    def beginnings(self) -> Iterator[tuple[int, str]]:
        """The start and the first two characters of each line that has so many."""
        for start in np.flatnonzero(np.diff(self.starts, prepend=-1)):
            begin = self.text[start : start + 2]
            if len(begin) == 2 and "\n" not in begin:
                yield int(start), begin


# --- key characters and columns --------------------------------------------------------------


def _of_keys(lines: _Lines) -> Iterator[Feature]:
    for key in lines.keys:
        name, count = f"“{visible(key)}”", lines.count(key)
        is_key = np.array([char == key for char in lines.text], np.bool_)
        yield _feature(f"after {name} in the line", count > 0)
        yield _feature(f"number of {name} in the line", count)
        yield _feature(f"odd number of {name} in the line", count % 2 == 1)
        yield _feature(f"characters since the last {name}", _since(is_key))
        yield _feature(f"characters to the next {name}", _since(is_key[::-1])[::-1])


def _since(holds: Bools) -> Reals:
    """The number of characters since the last True (N,); since the beginning, if there is none."""
    return run_length(~holds)


def _of_columns(lines: _Lines) -> Iterator[Feature]:
    """The columns of a key character that is equally often in most lines, if there is one."""
    last = np.flatnonzero(lines.ends)[:-1]  # the last line may be cut off
    if len(last) < MIN_COUNT:
        return
    best: tuple[float, int, str] = (0.0, 0, "")
    for key in lines.keys:
        per_line = lines.count(key)[np.maximum(last - 1, 0)].astype(int)
        numbers, counts = np.unique(per_line, return_counts=True)
        number, share = int(numbers[counts.argmax()]), float(counts.max() / len(last))
        if share >= SHARE:  # of two such characters, the one with more columns
            best = max(best, (number * share, number, key))
    _, number, key = best
    if not key:
        return
    count = lines.count(key)
    for column in range(min(number + 1, MOST_COLUMNS)):
        inside = (count == column) & ~lines.ends
        yield _feature(f"column {column + 1}, divided by “{visible(key)}”", inside)


# --- lines -----------------------------------------------------------------------------------


def _of_line_kinds(lines: _Lines) -> Iterator[Feature]:
    """Lines by their first two characters, if one of them is punctuation, and by the classes of
    these characters."""
    exact: dict[str, list[int]] = {}
    classes: dict[str, list[int]] = {}
    for start, two in lines.beginnings():
        names = [
            f"“{visible(char)}”" if name == "punctuation" else name
            for char, name in zip(two, lines.classes[start:], strict=False)
        ]
        if "punctuation" in lines.classes[start : start + 2]:
            exact.setdefault(f"“{visible(two)}”", []).append(start)
        classes.setdefault(" and ".join(names), []).append(start)
    for kinds in (exact, classes):
        for name, starts in sorted(kinds.items(), key=lambda it: -len(it[1]))[:LINE_KINDS]:
            inside = np.isin(lines.starts, starts) & ~lines.ends
            inside &= np.arange(len(inside)) > lines.starts  # known from the second character on
            yield _feature(f"in a line that begins with {name}", inside)


def _of_paragraphs(lines: _Lines) -> Iterator[Feature]:
    """The number of the line in its paragraph: lines up to an empty one."""
    empty = lines.ends & (lines.starts == np.arange(len(lines.ends)))
    number = lines.ends.cumsum().astype(np.float64)
    last_empty = np.maximum.accumulate(np.where(empty, number, 0.0))
    line = np.where(empty, 0.0, number - last_empty + 1 - lines.ends)
    yield _feature("line of the paragraph", line)
    yield _feature("odd line of the paragraph", line % 2 == 1)


# --- classes and periods ---------------------------------------------------------------------


def _of_classes(lines: _Lines) -> Iterator[Feature]:
    for name, count in Counter(lines.classes.tolist()).most_common():
        if count >= MIN_COUNT and name != "line end":
            holds = lines.classes == name
            yield _feature(f"position in a run: {name}", run_length(holds))
            yield _feature(f"characters since the last {name}", _since(holds))


def periods(text: str) -> list[int]:
    """The distances at which the text repeats itself most, best first; none if no distance stands
    out from the others. A pair of equal characters at this distance is more frequent than at
    others."""
    N = len(text)
    codes = np.array([ord(char) for char in text])
    longest = min(LONGEST_PERIOD, N // 8)
    if longest < 2 * SHORTEST_PERIOD:
        return []
    same = np.array([(codes[p:] == codes[:-p]).mean() for p in range(1, longest + 1)])
    deviation = float(np.median(np.abs(same - np.median(same))))
    scores = (same - np.median(same)) / max(deviation, 1 / np.sqrt(N))
    found: list[int] = []
    for p in (int(i) + 1 for i in np.argsort(-scores, kind="stable")):
        if len(found) == MOST_PERIODS or scores[p - 1] < MIN_REPEATS:
            break
        parts = [d for d in range(SHORTEST_PERIOD, p + 1) if p % d == 0]
        # a text that repeats at 36 does so at 72, too
        shortest = next((d for d in parts if scores[d - 1] >= 0.8 * scores[p - 1]), p)
        if p >= SHORTEST_PERIOD and not any(shortest % other == 0 for other in found):
            found.append(shortest)
    return found


def _of_periods(text: str) -> Iterator[Feature]:
    """The phase of each period, as a number and as two halves: a unit may rise or swing."""
    for p in periods(text):
        phase = np.arange(len(text)) % p
        yield _feature(f"phase of a period of {p} characters", phase.astype(float))
        yield _feature(f"second half of a period of {p}", phase >= p / 2)
        middle = (phase >= p / 4) & (phase < 3 * p / 4)
        yield _feature(f"middle half of a period of {p}", middle)
