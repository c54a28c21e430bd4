"""The header of a safetensors file: which tensors the file has, and where.

The layout is that of github.com/huggingface/safetensors: the length of the header in 8
little-endian bytes, a JSON header, the bytes of the tensors. charlm reads it itself, so that
everything comes from one open file, and nothing is allocated before the header is checked.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

from charlm.config.shown import shown
from charlm.errors import DamageError

# The types that charlm writes, with the bytes of a number.
ITEM_SIZE = {"F64": 8, "I64": 8, "F32": 4, "F16": 2, "BF16": 2, "U8": 1}
# The largest model of 1000 layers has 50,000 tensors in 8 MB of a header, with 3 brackets each, and
# a vocabulary of all 1.1 million characters takes 4.5 MB. The limits keep the memory and the time
# for parsing small: an empty list takes 3 bytes in JSON, and 64 in Python.
MAX_HEADER, MAX_BRACKETS = 16 << 20, 300_000
MAX_KEYS = 1000  # of an object in the metadata; a checkpoint of charlm has below 50
MAX_DIMENSIONS = 8


class ForeignError(ValueError):
    """A file is not a safetensors file with the metadata of charlm."""


@dataclass(frozen=True)
class Entry:
    """A tensor of a file; begin and end count bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Attributes:
        metadata: charlm's own part, not checked.
        tensors: the rest, not checked.
        end: the bytes of the file up to the end of the header.
        size: the bytes of the file.
    """

    metadata: dict[str, Any]
    tensors: dict[str, Any]
    end: int
    size: int

    def entries(self) -> dict[str, Entry]:
        """The tensors by name. They cover the file after the header without gaps.

        Raises:
            DamageError: an entry is wrong, or the file has another size than they say.
        """
        entries = {name: _entry(name, raw, self.end) for name, raw in self.tensors.items()}
        at = self.end
        for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
            if entry.begin != at:
                raise DamageError(f"a gap or an overlap before {shown(name)}")
            at = entry.end
        if at != self.size:
            raise DamageError(f"it has {self.size:,} bytes, but its tensors end at byte {at:,}")
        return entries


def read_header(file: BinaryIO) -> Header:
    """Read the header of a file that is open at its start.

    Raises:
        ForeignError: it is not a file of charlm, or its header is cut short or too long.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_HEADER):
        raise ForeignError
    header = _parse(file.read(length))
    try:
        metadata = _parse(header.pop("__metadata__")["charlm"].encode(), MAX_KEYS)
    except (KeyError, TypeError, AttributeError) as error:
        raise ForeignError from error
    return Header(metadata, header, 8 + length, size)


def _parse(content: bytes, max_keys: int = MAX_HEADER) -> dict[str, Any]:
    """Parse a JSON object of unknown origin.

    Raises:
        ForeignError: it is not valid; or an object has a key twice, or a string with a lone
            surrogate; or a number is not finite; or it is larger or deeper than charlm writes it.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs) or len(pairs) > max_keys:
            raise ValueError("a key twice, or too many keys")
        for text in (text for pair in pairs for text in pair if isinstance(text, str)):
            text.encode()  # fails for a lone surrogate
        return found

    def refuse(number: str) -> None:
        raise ValueError(number)

    if content.count(b"[") + content.count(b"{") > MAX_BRACKETS:
        raise ForeignError
    try:
        found = json.loads(content.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ForeignError from error
    if not isinstance(found, dict):
        raise ForeignError
    return found


def _entry(name: str, raw: Any, start: int) -> Entry:
    problem = DamageError(f"no valid dtype, shape and data_offsets of {shown(name)}")
    try:
        dtype, shape, (begin, end) = raw["dtype"], raw["shape"], raw["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise problem from error
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS:
        raise problem
    numbers = (*shape, begin, end)
    if not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise problem
    if end - begin != math.prod(shape) * ITEM_SIZE.get(dtype, 0) or end == begin:
        raise DamageError(
            f"{shown(name)} is {tuple(shape)} of {shown(dtype)}, in bytes {begin} to {end}"
        )
    return Entry(dtype, tuple(shape), start + begin, start + end)
