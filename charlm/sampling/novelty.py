"""How much of what was written stands in the training text: memory against invention.

The training text may be larger than the memory: it is read in stretches, once for each length
asked about. Places where a passage may stand are found by hashes and then compared, so that the
answers are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import CHUNK_CHARS, Ids, Vocab

NGRAMS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_BETWEEN = 2**32  # stands between two samples; no character has this id
_BASE = 0x9E3779B97F4A7C15  # odd; 2^64 over the golden ratio
_MOST_BITS = 24  # of the table that tells what cannot be there

Numbers = NDArray[np.uint64]


class Text(Protocol):
    """The training text's ids, wherever they lie."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Ids: ...


@dataclass(frozen=True)
class Novelty:
    """What some samples have from the training text.

    Attributes:
        chars: of all samples together.
        longest: the longest passage that stands in the training text as it is.
        new_ngrams: by n, the share of the samples' n-grams that do not stand there.
        items, new_items: of a list, how many different ones were written, and not in the text.
    """

    chars: int
    longest: str
    new_ngrams: dict[int, float]
    items: int | None = None
    new_items: int | None = None


def compare(samples: Sequence[str], vocab: Vocab, text: Text, of_documents: bool) -> Novelty:
    """Compare samples, each by itself, with the training text."""
    ids = [vocab.encode(sample) for sample in samples]
    joined = _join(ids)
    start, length = longest_copied(joined, text)
    shares = {}
    for n in NGRAMS:
        if (places := _within(joined, n)).any():
            shares[n] = 1 - float(occurs(joined, n, text)[places].mean())
    items = {sample.removesuffix("\n") for sample in samples} if of_documents else set()
    return Novelty(
        chars=sum(map(len, ids)),
        longest=vocab.decode(joined[start : start + length].astype(np.int64).tolist()),
        new_ngrams=shares,
        items=len(items) if of_documents else None,
        new_items=len(items - _known(items, vocab, text)) if of_documents else None,
    )


def longest_copied(sample: Numbers, text: Text) -> tuple[int, int]:
    """Where in the sample its longest passage that stands in the text begins, and its length."""
    where: dict[int, int] = {0: 0}

    def found(n: int) -> bool:
        places = np.flatnonzero(occurs(sample, n, text, any_will_do=True))
        where.update({n: int(places[0])} if len(places) else {})
        return n in where

    low, high = 0, 1  # a passage of `low` is there; if one of n is, so is one of n - 1
    while found(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if found(middle) else (low, middle)
    return where[low], low


def occurs(sample: Numbers, n: int, text: Text, any_will_do: bool = False) -> NDArray[np.bool_]:
    """Whether the n characters at each place of the sample stand in the text: (len - n + 1,).

    With `any_will_do` it stops at the first that does, and leaves the others False.
    """
    kind = _kinds(sample, n)  # equal where the n characters are
    if not len(kind):
        return np.zeros(0, bool)
    _, first, kind = np.unique(kind, return_index=True, return_inverse=True)
    grams = _Grams(sample, n, first)
    for start in range(0, max(0, len(text) - n + 1), CHUNK_CHARS):
        stretch = text[start : start + CHUNK_CHARS + n - 1].astype(np.uint64)
        grams.look_for(stretch)
        if grams.found.all() or (any_will_do and grams.found.any()):
            break
    return np.asarray(grams.found[kind])


class _Grams:
    """Different n-grams of a sample, by where each first stands there, and which were found."""

    def __init__(self, sample: Numbers, n: int, first: NDArray[np.intp]) -> None:
        self._sample, self._n = sample, n
        keys = _hashes(sample, n)[first]
        order = np.argsort(keys)
        self._keys, self._order, self._first = keys[order], order, first[order]
        self._bits = min(_MOST_BITS, len(keys).bit_length() + 4)
        self._table = np.zeros(1 << self._bits, bool)
        self._table[self._short(keys)] = True
        self.found = np.zeros(len(keys), bool)

    def _short(self, keys: Numbers) -> NDArray[np.int64]:
        return (keys >> np.uint64(64 - self._bits)).astype(np.int64)

    def look_for(self, stretch: Numbers) -> None:
        """Find what stands in a stretch of the text."""
        hashes = _hashes(stretch, self._n)
        places = np.flatnonzero(self._table[self._short(hashes)])
        hashes = hashes[places]
        left = np.searchsorted(self._keys, hashes, "left")
        right = np.searchsorted(self._keys, hashes, "right")
        places, left, right = (each[right > left] for each in (places, left, right))
        for gram, place in self._pairs(places, left, right):
            if not self.found[self._order[gram]]:
                here = stretch[place : place + self._n]
                start = self._first[gram]
                same = np.array_equal(here, self._sample[start : start + self._n])
                self.found[self._order[gram]] = same

    def _pairs(self, places: Ids, left: Ids, right: Ids) -> Iterator[tuple[int, int]]:
        """Grams and places of equal hash; of grams not yet found, first one place for each."""
        _, firsts = np.unique(left, return_index=True)
        for of in (firsts, np.arange(len(places))):
            of = of[~self.found[self._order[left[of]]] | (right[of] - left[of] > 1)]
            for i in of.tolist():
                yield from ((gram, int(places[i])) for gram in range(left[i], right[i]))


def _hashes(ids: Numbers, n: int) -> Numbers:
    """A number for the n ids at each place: sum of (id_j + 1) base^(n - j + 1), modulo 2^64.

    Stretches of 1, 2, 4, ... are put together as n is written in twos.
    """
    block, size = ids + np.uint64(1), 1
    done: Numbers | None = None
    length = 0
    while True:
        if n & size:
            done = block if done is None else _joined(done, length, block, size)
            length += size
        if length == n:
            assert done is not None
            return np.asarray(done * np.uint64(_BASE))  # the upper bits then depend on all
        block, size = _joined(block, size, block, size), 2 * size


def _joined(a: Numbers, n_a: int, b: Numbers, n_b: int) -> Numbers:
    """The hashes of n_a + n_b ids from those of the first n_a and of the n_b after them."""
    count = max(0, min(len(a), len(b) - n_a))
    return a[:count] * np.uint64(pow(_BASE, n_b, 2**64)) + b[n_a : n_a + count]


def _kinds(ids: Numbers, n: int) -> NDArray[np.int64]:
    """A number for the n ids at each place, equal where they are, and only there.

    As _hashes, but pairs are numbered, not hashed (Karp, Miller & Rosenberg 1972).
    """

    def joined(a: NDArray[Any], n_a: int, b: NDArray[Any]) -> NDArray[np.int64]:
        count = max(0, min(len(a), len(b) - n_a))
        pairs = a[:count] * (len(ids) + 1) + b[n_a : n_a + count]
        return np.unique(pairs, return_inverse=True)[1].astype(np.int64)

    block = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    size, length = 1, 0
    done = block
    while length < n:
        if n & size:
            done = joined(done, length, block) if length else block
            length += size
        block, size = joined(block, size, block), 2 * size
    return done


def _join(samples: Sequence[Ids]) -> Numbers:
    between = np.array([_BETWEEN], np.uint64)
    parts = [part for ids in samples for part in (between, ids.astype(np.uint64))]
    return np.concatenate(parts[1:]) if parts else np.empty(0, np.uint64)


def _within(joined: Numbers, n: int) -> NDArray[np.bool_]:
    """The places where n characters are all of one sample."""
    borders = np.concatenate([[0], np.cumsum(joined == _BETWEEN)])
    return np.asarray(borders[n:] == borders[:-n])


def _known(items: set[str], vocab: Vocab, text: Text) -> set[str]:
    """Those items that are lines of the text."""
    known: set[str] = set()
    rest = ""
    for start in range(0, len(text), CHUNK_CHARS):
        *lines, rest = (rest + vocab.decode(text[start : start + CHUNK_CHARS])).split("\n")
        known |= items.intersection(lines)
    return known | items.intersection([rest])
