"""Characters, or bytes, and their ids."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.errors import DataError

Ids = NDArray[Any]  # of an unsigned integer type
CHUNK_CHARS = 1 << 20  # characters of a text worked on together
UNKNOWN = "\ufffd"  # stands for every character that a limited vocabulary leaves out


def code_points(text: str) -> Ids:
    """The Unicode code points of `text` (len(text),): uint8 if all are below 256, else uint32."""
    try:
        return np.frombuffer(text.encode("latin-1"), np.uint8)
    except UnicodeEncodeError:
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@dataclass(frozen=True)
class Vocab:
    """The V characters a model knows; a character's id is its place in `chars`.

    A limited vocabulary reads every other character as `UNKNOWN`, which it then has. One of bytes
    has all 256 of them, byte b as character b, and reads and writes text as its UTF-8.
    """

    chars: str
    limited: bool = False
    unit: Literal["char", "byte"] = "char"

    @classmethod
    def of(cls, text: str) -> Vocab:
        """The distinct characters of `text`, sorted by code point."""
        return cls("".join(map(chr, np.unique(code_points(text)))))

    @classmethod
    def of_bytes(cls) -> Vocab:
        """All bytes."""
        return cls("".join(map(chr, range(256))), unit="byte")

    def __len__(self) -> int:
        return len(self.chars)

    def extended(self, other: Vocab) -> Vocab:
        """This vocabulary, ids unchanged, with the new characters of `other` behind it."""
        known = set(self.chars)
        new = "".join(c for c in other.chars if c not in known)
        return replace(self, chars=self.chars + new, limited=other.limited)

    def encode(self, text: str) -> Ids:
        """The ids of `text`, in the smallest unsigned type that holds V ids: (len(text),), or
        one a byte.

        Raises:
            DataError: a character is not in the vocabulary; the message names it and its place.
        """
        ids = self._look_up(text)
        unknown = ids == len(self)
        if unknown.any():
            raise DataError(self._describe_unknown(text, unknown))
        return ids.astype(np.min_scalar_type(len(self) - 1), copy=False)

    def encode_known(self, text: str) -> tuple[Ids, int]:
        """The ids of the known characters of `text`, and how many unknown ones were left out."""
        ids = self._look_up(text)
        known = ids != len(self)
        return ids[known], int(ids.size - known.sum())

    def decode(self, ids: Ids | list[int]) -> str:
        """The text of `ids`; a byte that is not UTF-8 as a surrogate, which writes back as it."""
        if self.unit == "byte":
            return bytes(bytearray(ids)).decode("utf-8", "surrogateescape")
        return "".join(map(self.chars.__getitem__, ids))

    def table(self, chars: str) -> Ids:
        """The id of each character of `chars`; V for those unknown to a vocabulary unlimited."""
        other = self.chars.index(UNKNOWN) if self.limited else len(self)
        places = {char: i for i, char in enumerate(self.chars)}
        ids = [places.get(char, other) for char in chars]
        return np.array(ids, np.min_scalar_type(max([*ids, len(self) - 1])))

    @cached_property
    def _by_code_point(self) -> Ids:
        """Ids by code point, up to the largest known one and one beyond (which is unknown)."""
        known = code_points(self.chars)
        other = self.chars.index(UNKNOWN) if self.limited else len(self)
        table = np.full(int(known.max(initial=0)) + 2, other, np.min_scalar_type(len(self)))
        table[known] = np.arange(len(self))
        return table

    def _look_up(self, text: str) -> Ids:
        if self.unit == "byte":
            return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        return np.take(self._by_code_point, code_points(text), mode="clip")

    def _describe_unknown(self, text: str, unknown: NDArray[np.bool_]) -> str:
        places = np.flatnonzero(unknown)
        distinct = Vocab.of("".join(text[i] for i in places[:10_000])).chars
        first = int(places[0])
        where = f"{len(places):,} of {len(text):,} characters, the first at character {first:,}"
        return self.describe_unknown(distinct, where, text[first])

    def describe_unknown(self, distinct: str, where: str, first: str) -> str:
        """How a message tells of unknown characters: which, where, and what is like the first."""
        names = describe(distinct[:5], more=len(distinct) > 5)
        return (
            f"the vocabulary does not have {names} ({where}); nearest known: "
            f"{describe(self.nearest(first))}"
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


class Decoder:
    """Ids to text one at a time: what they complete, which for bytes may be nothing yet."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._bytes = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def add(self, id_: int) -> str:
        """What id_ completes."""
        if self._vocab.unit == "char":
            return self._vocab.chars[id_]
        return self._bytes.decode(bytes([id_]))

    def rest(self) -> str:
        """What was begun and not completed."""
        return self._bytes.decode(b"", final=True)


def describe(chars: Iterable[str], more: bool = False) -> str:
    """`'é' (U+00E9), 'ü' (U+00FC), ...`: characters as a message shows them."""
    shown = [f"{char!r} (U+{ord(char):04X})" for char in chars]
    return ", ".join(shown + ["..."] * more)
