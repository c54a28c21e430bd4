"""A text encoded into files: read once, in pieces, never held in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from charlm.config import DataConfig
from charlm.data.encode import Encoder
from charlm.data.items import shuffle_items
from charlm.data.sources import CHUNK, Source, describe_sources, stamp_of
from charlm.data.text import read_texts
from charlm.data.vocab import Ids
from charlm.errors import DataError

FORMAT = 1  # of the files; a text encoded in another is encoded anew
IDS, STARTS = "ids.bin", "starts.bin"


class FileFacts(BaseModel):
    """A file as it was when it was written, and the stamp by which to know it."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    stamp: list[int]


class Facts(BaseModel):
    """What an encoded text is."""

    model_config = ConfigDict(frozen=True)

    format: int
    sha256: str  # of the text in UTF-8; of the bytes where the unit is byte
    chars: str  # by raw id
    counts: list[int]  # how often each is in the text
    dtype: str  # of the ids
    files: dict[str, FileFacts]


def build(folder: Path, sources: Sequence[Source], data: DataConfig) -> Facts:
    """Read the sources as `data` says and write into a folder:

        ids.bin     the raw ids (N,), of the smallest unsigned type
        starts.bin  of a list of items: where each begins, and the end (n_items + 1,), int64

    Raises:
        DataError: the text cannot be read, or there is none.
        OSError: the folder cannot be written.
    """
    encoder, digest = Encoder(), hashlib.sha256()
    pieces = read_texts(sources, data)
    if data.documents == "lines":
        pieces = _ended(pieces)
    ids = _write_ids(folder / IDS, _watched(pieces, data.unit, digest), encoder)
    if not len(ids):
        raise DataError(f"{describe_sources(sources)}: this text is empty")
    counts = encoder.counts
    if data.documents == "lines":
        counts = _order_items(folder, ids, encoder)
    return Facts(
        format=FORMAT,
        sha256=digest.hexdigest(),
        chars=encoder.chars,
        counts=counts,
        dtype=str(ids.dtype),
        files={
            path.name: FileFacts(sha256=hash_file(path), stamp=stamp_of(path))
            for path in sorted(folder.iterdir())
        },
    )


def _watched(pieces: Iterable[str], unit: str, digest: hashlib._Hash) -> Iterator[str]:
    """The pieces, hashed as they pass."""
    for piece in pieces:
        digest.update(piece.encode("latin-1" if unit == "byte" else "utf-8"))
        yield piece


def _ended(pieces: Iterable[str]) -> Iterator[str]:
    """The text with its last line ended."""
    last = ""
    for piece in pieces:
        last = piece[-1:] or last
        yield piece
    if last and last != "\n":
        yield "\n"


def _write_ids(path: Path, pieces: Iterable[str], encoder: Encoder) -> Ids:
    """Write the raw ids of a text; returns a map of them."""
    dtype = np.dtype(np.uint8)
    file: BinaryIO = path.open("wb")
    try:
        for piece in pieces:
            ids = encoder.add(piece)
            if ids.dtype != dtype:
                file.close()
                file = _widened(path, dtype, ids.dtype)
                dtype = ids.dtype
            file.write(ids.data)
    finally:
        file.close()
    return map_file(path, dtype)


def _widened(path: Path, old: np.dtype[Any], new: np.dtype[Any]) -> BinaryIO:
    """The file with its ids of another type, open for more."""
    narrow = path.replace(path.with_suffix(".narrow"))
    file = path.open("wb")
    with narrow.open("rb") as before:
        while len(ids := np.fromfile(before, old, CHUNK)):
            file.write(ids.astype(new).data)
    narrow.unlink()
    return file


def _order_items(folder: Path, ids: Ids, encoder: Encoder) -> list[int]:
    """Put the lines in their order, blank ones left out; returns how often each raw id is left."""
    starts = shuffle_items(ids, encoder.chars, folder / "shuffled")
    (folder / STARTS).write_bytes(starts.data)
    (folder / "shuffled").replace(folder / IDS)
    ids, counts = map_file(folder / IDS, ids.dtype), np.zeros(len(encoder.chars), np.int64)
    for i in range(0, len(ids), CHUNK):
        counts += np.bincount(ids[i : i + CHUNK], minlength=len(counts))
    return [int(count) for count in counts]


def map_file(path: Path, dtype: str | np.dtype[Any]) -> NDArray[Any]:
    """The numbers in a file (n,), read where they are looked at."""
    if not path.stat().st_size:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))


def hash_file(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
