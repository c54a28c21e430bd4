"""Where the bits go: what each character costs, by its kind, its place and its history.

Source of the comparison with n-gram models: Karpathy, Johnson and Li (2015), "Visualizing and
Understanding Recurrent Networks", section 4.4: a character is an error where the network gives it
less than an even chance, and an n-gram model would have avoided it where that gives it more.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.data.yardsticks import ngram_probabilities
from charlm.insight.features import position_in_line, position_in_word
from charlm.insight.record import Array

ORDERS = 9  # n-gram models with 0 to 8 characters before
PASSAGE = 60  # characters


@dataclass(frozen=True)
class Group:
    """So many characters of a kind, what each costs (mean bits) and their share of all bits."""

    name: str
    count: int
    bits: float
    share: float


@dataclass(frozen=True)
class Passage:
    """A stretch of text from start to stop, and its mean bits per character."""

    start: int
    stop: int
    bits: float


@dataclass(frozen=True)
class NGram:
    """A model that looks at `order` characters before, on the same text.

    Attributes:
        bits: its mean bits per character.
        avoided: of the network's errors, the share that this model would have avoided.
        avoided_by_any: the share that it or a model of a lower order would have avoided.
        bits_avoided: of all the network's bits, the share that lies on the errors of `avoided`.
    """

    order: int
    bits: float
    avoided: float
    avoided_by_any: float
    bits_avoided: float


def by_class(text: str, bits: Array) -> list[Group]:
    """By the class of the character that is predicted; bits (N,), NaN where not predicted."""
    return _groups([char_class(char) for char in text], bits)


def char_class(char: str) -> str:
    """`letter, small`, `space`, `punctuation`, ..."""
    if char in "\n\r":
        return "line end"
    if char.isspace():
        return "space"
    kinds = {"Ll": "small letter", "Lu": "capital", "N": "digit", "L": "letter without case"}
    category = unicodedata.category(char)
    marks = "punctuation" if category[0] in "PS" else "other"
    return kinds.get(category, kinds.get(category[0], marks))


def by_word_position(text: str, bits: Array, most: int = 12) -> list[Group]:
    """By place in the word, 1 for its first letter; only letters."""
    places = position_in_word(text)
    names = ["" if n == 0 else f"{most}+" if n >= most else str(int(n)) for n in places]
    return _ordered(names, bits, [*map(str, range(1, most)), f"{most}+"])


def by_line_position(text: str, bits: Array, step: int = 5, most: int = 100) -> list[Group]:
    """By place in the line, 1 for its first character, in steps; a line end counts with the
    character it stands behind."""
    places = position_in_line(text)
    places[1:] = np.where(places[1:] == 0, places[:-1] + 1, places[1:])
    edges = list(range(0, most, step))
    labels = [f"{edge + 1} to {edge + step}" for edge in edges] + [f"{most + 1}+"]
    found = np.clip((np.maximum(places, 1) - 1) // step, 0, len(labels) - 1).astype(int)
    return _ordered([labels[i] for i in found], bits, labels)


def by_distance(text: str, bits: Array) -> list[Group]:
    """By how many characters ago the same character was last seen, in powers of two."""
    last: dict[str, int] = {}
    names, order = [], ["1"]
    for place, char in enumerate(text):
        gap = place - last[char] if char in last else 0
        last[char] = place
        low = 1 << (gap.bit_length() - 1) if gap else 0
        names.append("1" if gap == 1 else f"{low} to {2 * low - 1}" if gap else "never")
    order += [f"{1 << k} to {(2 << k) - 1}" for k in range(1, 40)] + ["never"]
    return _ordered(names, bits, order)


def worst_passages(bits: Array, keep: int = 6, length: int = PASSAGE) -> list[Passage]:
    """The stretches with the highest mean bits, apart from each other; bits (N,)."""
    costs = np.nan_to_num(bits)
    length = min(length, len(costs))
    sums = np.convolve(costs, np.ones(length), "valid")
    found: list[Passage] = []
    for start in np.argsort(-sums, kind="stable"):
        if all(abs(start - other.start) >= length for other in found):
            mean = float(sums[start] / length)
            found.append(Passage(int(start), int(start) + length, mean))
        if len(found) == keep:
            break
    return found


def compare_ngrams(nats: Array, before: Ids, ids: Ids, orders: int = ORDERS) -> list[NGram]:
    """n-gram models of the text `before` (M,) against what a network needs for ids (N,), nats (N,),
    over the characters that the network was scored on."""
    scored = ~np.isnan(nats)
    wrong = np.exp(-nats[scored]) < 0.5  # the paper's errors
    network, total = nats[scored], max(float(nats[scored].sum()), 1e-12)
    any_right = np.zeros(len(wrong), np.bool_)
    found = []
    for order, p in enumerate(ngram_probabilities(before, ids, orders - 1)):
        right = p[scored] > 0.5
        any_right |= right
        found.append(
            NGram(
                order,
                float(np.log2(1 / p[scored]).mean()) if len(wrong) else 0.0,
                _share(right, wrong),
                _share(any_right, wrong),
                float(network[wrong & right].sum()) / total,
            )
        )
    return found


def _share(some: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    return float((some & of).sum() / max(1, of.sum()))


def _groups(names: Sequence[str], bits: Array) -> list[Group]:
    """By name, those that cost most in all first; places without bits or name are left out."""
    labels = np.array(names, dtype=object)
    total = float(np.nansum(bits)) or 1.0
    found = []
    for name in dict.fromkeys(names):
        own = bits[(labels == name) & ~np.isnan(bits)]
        if name and len(own):
            found.append(Group(name, len(own), float(own.mean()), float(own.sum()) / total))
    return sorted(found, key=lambda group: -group.share)


def _ordered(names: Sequence[str], bits: Array, order: Sequence[str]) -> list[Group]:
    return sorted(_groups(names, bits), key=lambda group: order.index(group.name))
