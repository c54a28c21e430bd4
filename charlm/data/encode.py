"""Characters to numbers, at the speed of the memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids, code_points

_ALL = 0x110000  # code points of Unicode


class Encoder:
    """Numbers the characters of a text as they come, and counts them.

    A character's raw id stands for it in the encoded text only; which id a model knows it by is
    the vocabulary's to say.
    """

    def __init__(self) -> None:
        self._known = np.zeros(_ALL, np.bool_)
        self._raw = np.zeros(_ALL, np.uint8)  # raw ids by code point
        self._codes: list[int] = []
        self._counts = np.zeros(_ALL, np.int64)  # by code point

    def add(self, text: str) -> Ids:
        """The raw ids of a piece of the text (len(text),).

        They are of the smallest unsigned type that holds all so far, so the type may widen.
        """
        codes = code_points(text)
        counts = _count(codes)
        present = np.flatnonzero(counts)
        self._counts[present] += counts[present]
        self._number(present[~self._known[present]])
        return np.take(self._raw, codes, mode="clip")  # which, unlike raise, copies nothing

    def _number(self, new: NDArray[np.intp]) -> None:
        if not len(new):
            return
        first, self._codes = len(self._codes), self._codes + new.tolist()
        smallest = np.min_scalar_type(len(self._codes) - 1)
        self._raw = self._raw.astype(smallest, copy=False)
        self._raw[new] = np.arange(first, len(self._codes))
        self._known[new] = True

    @property
    def chars(self) -> str:
        """The characters seen, by raw id."""
        return "".join(map(chr, self._codes))

    @property
    def counts(self) -> list[int]:
        """How often each was seen, by raw id."""
        return [int(count) for count in self._counts[self._codes]]


def _count(codes: Ids) -> NDArray[np.intp]:
    """How often each code point occurs, up to the largest."""
    if codes.dtype == np.uint32:
        return np.bincount(codes)
    even = len(codes) // 2 * 2
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)  # two characters at a time take half the time
    counts[codes[even:]] += 1
    return np.asarray(counts)
