"""The vocabulary: characters or bytes, and their ids."""

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

Ids = NDArray[Any]  # an array of unsigned integers
CHUNK_CHARS = 1 << 20  # characters of a text that are processed at once
UNKNOWN = "\ufffd"  # replaces every character that a limited vocabulary does not have


def code_points(text: str) -> Ids:
    """The code points of `text` (N,) for N characters: uint8 if all are below 256, else uint32."""
    try:
        return np.frombuffer(text.encode("latin-1"), np.uint8)
    except UnicodeEncodeError:
        return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@dataclass(frozen=True)
class Vocab:
    """The V characters that a model knows.

    Args:
        chars: The characters. The id of a character is its index here.
        limited: Whether every other character is encoded as `UNKNOWN`, which `chars` then contains.
        unit: "char", or "byte" for the vocabulary of all 256 bytes: byte b is the character with
            code point b, and text is encoded and decoded as UTF-8.
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
        """The vocabulary of all 256 bytes."""
        return cls("".join(map(chr, range(256))), unit="byte")

    def __len__(self) -> int:
        return len(self.chars)

    def extended(self, other: Vocab) -> Vocab:
        """This vocabulary with the new characters of `other` at the end. The ids do not change."""
        known = set(self.chars)
        new = "".join(c for c in other.chars if c not in known)
        return replace(self, chars=self.chars + new, limited=other.limited)

    def encode(self, text: str) -> Ids:
        """The ids of `text`, in the smallest unsigned type that can hold V ids.

        Returns:
            (N,) for N characters, or for N bytes of UTF-8.

        Raises:
            DataError: A character is not in the vocabulary. The message says which and where.
        """
        ids = self._look_up(text)
        unknown = ids == len(self)
        if unknown.any():
            raise DataError(self._describe_unknown(text, unknown))
        return ids.astype(np.min_scalar_type(len(self) - 1), copy=False)

    def encode_known(self, text: str) -> tuple[Ids, int]:
        """The ids of the known characters of `text`, and the number of unknown characters."""
        ids = self._look_up(text)
        known = ids != len(self)
        return ids[known], int(ids.size - known.sum())

    def decode(self, ids: Ids | list[int]) -> str:
        """The text of `ids`. A byte that is not UTF-8 becomes a surrogate (PEP 383)."""
        if self.unit == "byte":
            return bytes(bytearray(ids)).decode("utf-8", "surrogateescape")
        return "".join(map(self.chars.__getitem__, ids))

    def table(self, chars: str) -> Ids:
        """The id of each character of `chars`. An unknown character has V if not `limited`."""
        ids = self._by_code_point(chars)
        dtype = np.min_scalar_type(max(int(ids.max(initial=0)), len(self) - 1))
        return ids.astype(dtype, copy=False)

    @cached_property
    def _id_of_code_point(self) -> Ids:
        """Ids by code point. The last entry, above all known code points, is for unknown ones."""
        known = code_points(self.chars)
        size, dtype = int(known.max(initial=0)) + 2, np.min_scalar_type(len(self))
        table = np.full(size, self.chars.index(UNKNOWN) if self.limited else len(self), dtype)
        table[known] = np.arange(len(self))
        return table

    def _look_up(self, text: str) -> Ids:
        if self.unit == "byte":
            return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
        return self._by_code_point(text)

    def _by_code_point(self, chars: str) -> Ids:
        return np.take(self._id_of_code_point, code_points(chars), mode="clip")

    def _describe_unknown(self, text: str, unknown: NDArray[np.bool_]) -> str:
        positions = np.flatnonzero(unknown)
        distinct = Vocab.of("".join(text[i] for i in positions[:10_000])).chars
        at = int(positions[0])
        return self.describe_unknown(distinct, len(positions), len(text), at, text[at])

    def describe_unknown(self, distinct: str, count: int, of: int, at: int, first: str) -> str:
        """A message about unknown characters: which, where, and known ones similar to the first.

        Args:
            distinct: all of them, each once.
            count, of: how many they are, of how many characters.
            at, first: the position of the first one, and the character.
        """
        names = describe(distinct[:5], more=len(distinct) > 5)
        where = f"{count:,} of {of:,} characters, the first at character {at:,}"
        message = f"the vocabulary does not have {names} ({where})"
        if first == "\\":
            return f"{message}; a line break in bash or zsh is written as in $'one\\ntwo'"
        return f"{message}; nearest known: {describe(self.nearest(first))}"

    def nearest(self, char: str) -> list[str]:
        """4 known characters similar to `char`: the other case, no accent, a near code point."""
        base = unicodedata.normalize("NFKD", char)[:1]
        similar = [char.lower(), char.upper(), base, base.lower(), base.upper()]
        category = unicodedata.category(char)[0]
        by_distance = sorted(
            self.chars,
            key=lambda c: (unicodedata.category(c)[0] != category, abs(ord(c) - ord(char))),
        )
        known = [c for c in similar if c and c in self.chars]
        return list(dict.fromkeys(known + by_distance))[:4]


class Decoder:
    """Decodes one id at a time. A byte gives no text until its character is complete."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._bytes = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def add(self, id_: int) -> str:
        """The text that `id_` completes, or an empty string."""
        if self._vocab.unit == "char":
            return self._vocab.chars[id_]
        return self._bytes.decode(bytes([id_]))

    def rest(self) -> str:
        """The text of the bytes of an incomplete character at the end."""
        return self._bytes.decode(b"", final=True)


def describe(chars: Iterable[str], more: bool = False) -> str:
    """Characters as a message shows them: `'é' (U+00E9), 'ü' (U+00FC), ...`."""
    shown = [f"{char!r} (U+{ord(char):04X})" for char in chars]
    return ", ".join(shown + ["..."] * more)
