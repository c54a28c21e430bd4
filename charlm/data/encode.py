"""Characters to raw ids, while a text is read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids, code_points

_N_CODE_POINTS = 0x110000  # of Unicode


class Encoder:
    """Gives each new character of a text the next raw id, and counts the characters.

    Raw ids are used only in the encoded text. `Vocab.table` maps them to the ids of a model.
    """

    def __init__(self) -> None:
        self._raw = np.zeros(_N_CODE_POINTS, np.uint8)  # raw ids by code point
        self._codes: list[int] = []
        self._counts = np.zeros(_N_CODE_POINTS, np.int64)  # by code point

    def add(self, text: str) -> Ids:
        """The raw ids of a piece of the text, (len(text),).

        Their type is the smallest unsigned type that holds all raw ids so far. It may become
        wider with every piece.
        """
        codes = code_points(text)
        counts = _count(codes)
        present = np.flatnonzero(counts)
        self._add_codes(present[self._counts[present] == 0])
        self._counts[present] += counts[present]
        return np.take(self._raw, codes, mode="clip")  # unlike "raise", needs no extra buffer

    def _add_codes(self, new: NDArray[np.intp]) -> None:
        if not len(new):
            return
        first, self._codes = len(self._codes), self._codes + new.tolist()
        smallest = np.min_scalar_type(len(self._codes) - 1)
        self._raw = self._raw.astype(smallest, copy=False)
        self._raw[new] = np.arange(first, len(self._codes))

    @property
    def chars(self) -> str:
        """The characters so far, by raw id."""
        return "".join(map(chr, self._codes))

    @property
    def counts(self) -> list[int]:
        """The number of occurrences of each character, by raw id."""
        return [int(count) for count in self._counts[self._codes]]


def _count(codes: Ids) -> NDArray[np.intp]:
    """The number of occurrences of each code point, up to the largest one."""
    if codes.dtype == np.uint32:
        return np.bincount(codes)
    even = len(codes) // 2 * 2
    pairs = np.bincount(codes[:even].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(0) + pairs.sum(1)  # counting pairs of characters takes half the time
    counts[codes[even:]] += 1
    return np.asarray(counts)
