"""How much of a sampled text occurs in the training text: what was copied, and what is new.

The training text may be larger than the memory: it is read in chunks, once for each n. Candidates
are found by hashes and then compared character by character, so the results are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import CHUNK_CHARS, Ids, Vocab

NGRAMS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
_SEPARATOR = 2**32  # between two samples; no character has this id
_BASE = 0x9E3779B97F4A7C15  # of the hashes: odd, 2^64 divided by the golden ratio
_MAX_BITS = 24  # the table that rules out most positions has at most 2^24 entries

Numbers = NDArray[np.uint64]


class Text(Protocol):
    """The ids of the training text, in memory or on the disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: slice, /) -> Ids: ...


@dataclass(frozen=True)
class Novelty:
    """A comparison of samples with the training text.

    `charlm sample --format jsonl --novelty` prints the attributes by these names.

    Attributes:
        chars: the number of characters of all samples.
        longest: the longest passage of a sample that occurs in the training text.
        new_ngrams: for each n, the share of the samples' n-grams that do not occur there. An n
            that is longer than every sample is left out.
        items: the number of distinct sampled documents; None if the data is not a list.
        new_items: how many of them are not a line of the training text.
        held_out_items: how many of the new ones are a line of a text that was held out.
    """

    chars: int
    longest: str
    new_ngrams: dict[int, float]
    items: int | None = None
    new_items: int | None = None
    held_out_items: int | None = None


def compare(
    samples: Sequence[str],
    vocab: Vocab,
    text: Text,
    of_documents: bool,
    held_out: Sequence[Text] = (),
) -> Novelty:
    """Compare samples with the training text. No passage or n-gram spans two samples.

    Args:
        samples: of characters in the vocabulary.
        text: the training text.
        of_documents: whether each sample is a document, that is, a line of a list.
        held_out: the validation and test texts.

    Raises:
        DataError: a character is not in the vocabulary.
    """
    ids = [vocab.encode(sample) for sample in samples]
    joined = _join(ids)
    start, length = longest_copied(joined, text)
    shares = {}
    for n in NGRAMS:
        if (inside := _inside_one_sample(joined, n)).any():
            shares[n] = 1 - float(occurs(joined, n, text)[inside].mean())
    documents = {sample.removesuffix("\n") for sample in samples} if of_documents else set()
    new = documents - _known_documents(documents, vocab, text)
    held = set().union(*(_known_documents(new, vocab, each) for each in held_out))
    return Novelty(
        chars=sum(map(len, ids)),
        longest=vocab.decode(joined[start : start + length].astype(np.int64).tolist()),
        new_ngrams=shares,
        items=len(documents) if of_documents else None,
        new_items=len(new) if of_documents else None,
        held_out_items=len(held) if of_documents else None,
    )


def longest_copied(sample: Numbers, text: Text) -> tuple[int, int]:
    """The start and the length of the longest passage of the sample that occurs in the text."""
    starts: dict[int, int] = {0: 0}  # by length

    def is_found(n: int) -> bool:
        positions = np.flatnonzero(occurs(sample, n, text, any_one=True))
        if len(positions):
            starts[n] = int(positions[0])
        return n in starts

    # bisection: if a passage of n characters occurs, so does one of n - 1
    low, high = 0, 1
    while is_found(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_found(middle) else (low, middle)
    return starts[low], low


def occurs(sample: Numbers, n: int, text: Text, any_one: bool = False) -> NDArray[np.bool_]:
    """For each n-gram of the sample, whether it occurs in the text.

    Args:
        sample: ids (N,).
        any_one: stop after the first chunk of the text with an n-gram of the sample. The n-grams
            that were not found until then are False.

    Returns:
        (max(0, N - n + 1),), by the position where the n-gram starts.
    """
    numbers = _ngram_numbers(sample, n)
    if not len(numbers):
        return np.zeros(0, bool)
    _, first, index = np.unique(numbers, return_index=True, return_inverse=True)
    ngrams = _NgramTable(sample, n, first)
    for start in range(0, max(0, len(text) - n + 1), CHUNK_CHARS):
        ngrams.search(text[start : start + CHUNK_CHARS + n - 1].astype(np.uint64))
        if ngrams.found.all() or (any_one and ngrams.found.any()):
            break
    return np.asarray(ngrams.found[index])


class _NgramTable:
    """The N distinct n-grams of a sample, and which of them were found in the text.

    Args:
        first: the position of the first occurrence of each n-gram in the sample, (N,).

    Attributes:
        found: (N,).
    """

    def __init__(self, sample: Numbers, n: int, first: NDArray[np.intp]) -> None:
        self._sample, self._n, self._first = sample, n, first
        self._hashes = _hashes(sample, n)[first]
        self._bits = min(_MAX_BITS, len(first).bit_length() + 4)
        self._table = np.zeros(1 << self._bits, bool)
        self._table[self._upper_bits(self._hashes)] = True
        self.found = np.zeros(len(first), bool)

    def _upper_bits(self, hashes: Numbers) -> NDArray[np.int64]:
        return (hashes >> np.uint64(64 - self._bits)).astype(np.int64)

    def search(self, chunk: Numbers) -> None:
        """Search the n-grams in a chunk of the text.

        Nearly always the first position with the same hash has the n-gram.
        """
        hashes, n = _hashes(chunk, self._n), self._n
        positions = np.flatnonzero(self._table[self._upper_bits(hashes)])
        positions = positions[np.argsort(hashes[positions])]
        left, right = (
            np.searchsorted(hashes[positions], self._hashes, side) for side in ("left", "right")
        )
        for i in np.flatnonzero(~self.found & (left < right)):
            ngram = self._sample[self._first[i] : self._first[i] + n]
            candidates = positions[left[i] : right[i]]
            self.found[i] = any(np.array_equal(chunk[at : at + n], ngram) for at in candidates)


def _hashes(ids: Numbers, n: int) -> Numbers:
    """A hash of the n ids from each position on: sum of (id_j + 1) base^(j + 1) for j = 0..n-1,
    modulo 2^64.

    It is the difference of two sums from the start of `ids`, divided by a power of the base. The
    upper bits depend on all n ids.
    """
    powers, inverses = (
        np.cumprod(np.full(len(ids), base, np.uint64)) for base in (_BASE, pow(_BASE, -1, 2**64))
    )
    sums = np.cumsum(np.append(np.uint64(0), (ids + np.uint64(1)) * powers))
    differences = sums[n:] - sums[:-n]
    return np.asarray(differences * inverses[: len(differences)] * np.uint64(_BASE))


def _ngram_numbers(ids: Numbers, n: int) -> NDArray[np.int64]:
    """A number for the n ids from each position on; equal n-grams, and only they, have equal
    numbers.

    An n-gram is a pair of shorter ones that may overlap, and distinct pairs are numbered (Karp,
    Miller & Rosenberg 1972).
    """
    numbers, length = np.unique(ids, return_inverse=True)[1], 1
    while length < n:
        shift = min(length, n - length)
        pairs = numbers[:-shift] * (len(ids) + 1) + numbers[shift:]
        numbers, length = np.unique(pairs, return_inverse=True)[1], length + shift
    return numbers.astype(np.int64)


def _join(samples: Sequence[Ids]) -> Numbers:
    """The samples one after the other, with a separator between two."""
    separator = np.array([_SEPARATOR], np.uint64)
    parts = [part for ids in samples for part in (separator, ids.astype(np.uint64))]
    return np.concatenate(parts[1:]) if parts else np.empty(0, np.uint64)


def _inside_one_sample(joined: Numbers, n: int) -> NDArray[np.bool_]:
    """For each position, whether the n characters from there on belong to one sample."""
    separators = np.concatenate([[0], np.cumsum(joined == _SEPARATOR)])
    return np.asarray(separators[n:] == separators[:-n])


def _known_documents(documents: set[str], vocab: Vocab, text: Text) -> set[str]:
    """The documents that are lines of the text."""
    if not documents:
        return set()
    known: set[str] = set()
    rest = ""
    for start in range(0, len(text), CHUNK_CHARS):
        *lines, rest = (rest + vocab.decode(text[start : start + CHUNK_CHARS])).split("\n")
        known |= documents.intersection(lines)
    return known | documents.intersection([rest])
