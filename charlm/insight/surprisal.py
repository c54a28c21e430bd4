"""Where the bits go: the surprisal of characters by class, position and history.

The comparison with n-gram models follows Karpathy, Johnson and Li (2015), "Visualizing and
Understanding Recurrent Networks", section 4.4: a character is an error if the network gives it a
probability below 1/2. An n-gram model avoids the error if it gives a probability above 1/2.
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

ORDERS = 9  # n-gram models of order 0 to 8
PASSAGE = 60  # characters


@dataclass(frozen=True)
class Group:
    """A group of characters.

    Attributes:
        count: the number of its characters.
        bits: their mean surprisal in bits.
        share: their share of all bits of the text.
    """

    name: str
    count: int
    bits: float
    share: float


@dataclass(frozen=True)
class Passage:
    """The characters start to stop of the text, and their mean bits per character."""

    start: int
    stop: int
    bits: float


@dataclass(frozen=True)
class NGram:
    """An n-gram model with a context of `order` characters, on the same text.

    Attributes:
        bits: its mean bits per character.
        avoided: the share of the network's errors that this model avoids.
        avoided_by_any: the share that it or a model of a lower order avoids.
        bits_avoided: the share of the network's bits that are on the errors of `avoided`.
    """

    order: int
    bits: float
    avoided: float
    avoided_by_any: float
    bits_avoided: float


def by_class(text: str, bits: Array) -> list[Group]:
    """Groups by the class of the character. The bits are (N,), NaN where it is not predicted."""
    return _groups([char_class(char) for char in text], bits)


def char_class(char: str) -> str:
    """The class of a character: `small letter`, `space`, `punctuation`, ..."""
    if char in "\n\r":
        return "line end"
    if char.isspace():
        return "space"
    kinds = {"Ll": "small letter", "Lu": "capital", "N": "digit", "L": "letter without case"}
    category = unicodedata.category(char)
    marks = "punctuation" if category[0] in "PS" else "other"
    return kinds.get(category, kinds.get(category[0], marks))


def by_word_position(text: str, bits: Array, limit: int = 12) -> list[Group]:
    """Groups of letters by position in the word, from 1; one group from `limit` on."""
    positions = position_in_word(text)
    names = ["" if n == 0 else f"{limit}+" if n >= limit else str(int(n)) for n in positions]
    return _ordered(names, bits, [*map(str, range(1, limit)), f"{limit}+"])


def by_line_position(text: str, bits: Array, step: int = 5, limit: int = 100) -> list[Group]:
    """Groups by position in the line, from 1, in steps. The position of a line end is that of the
    character before it, plus 1."""
    positions = position_in_line(text)
    positions[1:] = np.where(positions[1:] == 0, positions[:-1] + 1, positions[1:])
    edges = list(range(0, limit, step))
    labels = [f"{edge + 1} to {edge + step}" for edge in edges] + [f"{limit + 1}+"]
    groups = np.clip((np.maximum(positions, 1) - 1) // step, 0, len(labels) - 1).astype(int)
    return _ordered([labels[i] for i in groups], bits, labels)


def by_distance(text: str, bits: Array) -> list[Group]:
    """Groups by distance to the last occurrence of the same character, in powers of two."""
    last: dict[str, int] = {}
    labels = ["1", *(f"{1 << k} to {(2 << k) - 1}" for k in range(1, 40)), "never"]
    names = []
    for position, char in enumerate(text):
        distance = position - last.get(char, position)  # 0, of no bits, for never
        last[char] = position
        names.append(labels[distance.bit_length() - 1])
    return _ordered(names, bits, labels)


def worst_passages(bits: Array, keep: int = 6, length: int = PASSAGE) -> list[Passage]:
    """The passages with the highest mean bits (N,), worst first. They do not overlap."""
    known = np.nan_to_num(bits)
    length = min(length, len(known))
    sums = np.convolve(known, np.ones(length), "valid")
    passages: list[Passage] = []
    for start in np.argsort(-sums, kind="stable"):
        if all(abs(start - other.start) >= length for other in passages):
            mean = float(sums[start] / length)
            passages.append(Passage(int(start), int(start) + length, mean))
        if len(passages) == keep:
            break
    return passages


def compare_ngrams(nats: Array, train: Ids, ids: Ids, orders: int = ORDERS) -> list[NGram]:
    """Compare a network with n-gram models, on the characters where it has a surprisal.

    Args:
        nats: (N,), the network's surprisal; NaN where it has none.
        train: ids of the text in which the n-grams are counted.
        ids: (N,), the text.
        orders: the number of models, of order 0 to orders - 1.
    """
    scored = ~np.isnan(nats)
    errors = np.exp(-nats[scored]) < 0.5
    scored_nats, total = nats[scored], max(float(nats[scored].sum()), 1e-12)
    right_by_any = np.zeros(len(errors), np.bool_)
    models = []
    for order, p in enumerate(ngram_probabilities(train, ids, orders - 1)):
        right = p[scored] > 0.5
        right_by_any |= right
        models.append(
            NGram(
                order,
                float(np.log2(1 / p[scored]).mean()) if len(errors) else 0.0,
                _share(right, errors),
                _share(right_by_any, errors),
                float(scored_nats[errors & right].sum()) / total,
            )
        )
    return models


def _share(some: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    return float((some & of).sum() / max(1, of.sum()))


def _groups(names: Sequence[str], bits: Array) -> list[Group]:
    """Groups by name, largest share first. Positions without a name or without bits are left
    out."""
    labels = np.array(names, dtype=object)
    total = float(np.nansum(bits)) or 1.0
    groups = []
    for name in dict.fromkeys(names):
        own = bits[(labels == name) & ~np.isnan(bits)]
        if name and len(own):
            groups.append(Group(name, len(own), float(own.mean()), float(own.sum()) / total))
    return sorted(groups, key=lambda group: -group.share)


def _ordered(names: Sequence[str], bits: Array, order: Sequence[str]) -> list[Group]:
    """Groups by name, in a given order."""
    return sorted(_groups(names, bits), key=lambda group: order.index(group.name))
