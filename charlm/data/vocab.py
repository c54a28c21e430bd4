"""Characters and their ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import DataError

Ids = NDArray[Any]  # of an unsigned integer type


def code_points(text: str) -> NDArray[np.uint32]:
    """The Unicode code points of `text`, one a character, shape (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@dataclass(frozen=True)
class Vocab:
    """The V characters a model knows; a character's id is its place in `chars`."""

    chars: str

    @classmethod
    def of(cls, text: str) -> Vocab:
        """The distinct characters of `text`, sorted by code point."""
        return cls("".join(map(chr, np.unique(code_points(text)))))

    def __len__(self) -> int:
        return len(self.chars)

    def extended(self, other: Vocab) -> Vocab:
        """This vocabulary, ids unchanged, with the new characters of `other` behind it."""
        return Vocab(self.chars + "".join(c for c in other.chars if c not in self.chars))

    def encode(self, text: str) -> Ids:
        """The ids of `text`, shape (len(text),), in the smallest unsigned type that holds V ids.

        Raises:
            DataError: a character is not in the vocabulary; the message names it and its place.
        """
        ids = self._look_up(text)
        unknown = ids == self._unknown
        if unknown.any():
            raise DataError(self._describe_unknown(text, unknown))
        return ids.astype(np.min_scalar_type(len(self) - 1), copy=False)

    def encode_known(self, text: str) -> tuple[Ids, int]:
        """The ids of the known characters of `text`, and how many unknown ones were left out."""
        ids = self._look_up(text)
        known = ids != self._unknown
        return ids[known], int(ids.size - known.sum())

    def decode(self, ids: Ids | list[int]) -> str:
        """The text of `ids`."""
        return "".join(map(self.chars.__getitem__, ids))

    @property
    def _unknown(self) -> int:
        """The id no character has: V."""
        return len(self.chars)

    @cached_property
    def _table(self) -> Ids:
        """Ids by code point, up to the largest known one and one beyond (which is unknown)."""
        known = code_points(self.chars)
        table = np.full(int(known.max(initial=0)) + 2, self._unknown, np.min_scalar_type(len(self)))
        table[known] = np.arange(len(self))
        return table

    def _look_up(self, text: str) -> Ids:
        return self._table[np.minimum(code_points(text), len(self._table) - 1)]

    def _describe_unknown(self, text: str, unknown: NDArray[np.bool_]) -> str:
        first = int(unknown.argmax())
        distinct = Vocab.of("".join(text[i] for i in np.flatnonzero(unknown)[:10_000])).chars
        names = describe(distinct[:5], more=len(distinct) > 5)
        return (
            f"the vocabulary does not have {names} ({int(unknown.sum()):,} of {len(text):,} "
            f"characters, the first at character {first:,}); nearest known: "
            f"{describe(self.nearest(text[first]))}"
        )

    def nearest(self, char: str, count: int = 4) -> list[str]:
        """Known characters that could stand for `char`: other case, no accent, near code points."""
        bare = unicodedata.normalize("NFKD", char)[:1]
        alike = [char.lower(), char.upper(), bare, bare.lower(), bare.upper()]
        category = unicodedata.category(char)[0]
        by_distance = sorted(
            self.chars,
            key=lambda c: (unicodedata.category(c)[0] != category, abs(ord(c) - ord(char))),
        )
        known = [c for c in alike if c and c in self.chars]
        return list(dict.fromkeys(known + by_distance))[:count]


def describe(chars: Iterable[str], more: bool = False) -> str:
    """`'é' (U+00E9), 'ü' (U+00FC), ...`: characters as a message shows them."""
    shown = [f"{char!r} (U+{ord(char):04X})" for char in chars]
    return ", ".join(shown + ["..."] * more)
