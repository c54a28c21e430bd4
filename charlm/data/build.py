"""Encode a text into files. It is read once, in pieces, and is never in memory as a whole."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from charlm.config import DataConfig
from charlm.data.documents import shuffle_documents
from charlm.data.encode import Encoder
from charlm.data.sources import CHUNK, Source, describe_sources, stamp_of
from charlm.data.text import read_texts
from charlm.data.vocab import Ids
from charlm.errors import DataError

FORMAT = 1  # of the files; a text in another format is encoded again
IDS, STARTS = "ids.bin", "starts.bin"


class FileFacts(BaseModel):
    """The hash and the stamp of a file when it was written. See `stamp_of`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    sha256: str
    stamp: list[int]


class Facts(BaseModel):
    """Facts about an encoded text."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    format: int
    sha256: str  # of the text in UTF-8; of its bytes if the unit is byte
    chars: str  # the characters by raw id
    counts: list[int]  # the number of occurrences by raw id
    dtype: str  # of the ids
    files: dict[str, FileFacts]


def build(folder: Path, sources: Sequence[Source], data: DataConfig) -> Facts:
    """Read the sources as `data` says, and write these files into a folder:

        ids.bin     the raw ids (N,), in the smallest unsigned type
        starts.bin  of a list: the start of each document, and the end (n_documents + 1,), int64

    Raises:
        DataError: the text cannot be read or is empty.
        OSError: the folder cannot be written.
    """
    encoder, digest = Encoder(), hashlib.sha256()
    pieces = read_texts(sources, data)
    if data.documents == "lines":
        pieces = _with_last_line_end(pieces)
    ids = _write_ids(folder / IDS, _hashed(pieces, data.unit, digest), encoder)
    if not len(ids):
        raise DataError(f"{describe_sources(sources)}: this text is empty")
    counts = encoder.counts
    if data.documents == "lines":
        counts = _shuffle(folder, ids, encoder)
    return Facts(
        format=FORMAT,
        sha256=digest.hexdigest(),
        chars=encoder.chars,
        counts=counts,
        dtype=str(ids.dtype),
        files={path.name: _facts_of(path) for path in sorted(folder.iterdir())},
    )


def _facts_of(path: Path) -> FileFacts:
    """The facts of a file that was just written. Makes the file read-only."""
    with suppress(OSError):  # not supported by all file systems; its mode is checked at opening
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~stat.S_IWOTH)
    with path.open("rb") as file:
        return FileFacts(sha256=hash_of(file), stamp=stamp_of(file.fileno()))


def _hashed(pieces: Iterable[str], unit: str, digest: hashlib._Hash) -> Iterator[str]:
    """The same pieces; adds each of them to `digest`."""
    for piece in pieces:
        digest.update(hashed_bytes(piece, unit))
        yield piece


def hashed_bytes(text: str, unit: str) -> bytes:
    """The bytes of a text whose hash is `Facts.sha256`."""
    return text.encode("latin-1" if unit == "byte" else "utf-8")


def _with_last_line_end(pieces: Iterable[str]) -> Iterator[str]:
    """The text, with a line end added to the last line if it has none."""
    last = ""
    for piece in pieces:
        last = piece[-1:] or last
        yield piece
    if last and last != "\n":
        yield "\n"


def _write_ids(path: Path, pieces: Iterable[str], encoder: Encoder) -> Ids:
    """Write the raw ids of a text. Returns a memory map of them."""
    dtype = np.dtype(np.uint8)
    file: BinaryIO = path.open("wb")
    try:
        for piece in pieces:
            ids = encoder.add(piece)
            if ids.dtype != dtype:
                file.close()
                file = _widen(path, dtype, ids.dtype)
                dtype = ids.dtype
            file.write(ids.data)
    finally:
        file.close()
    return map_file(path, dtype)


def _widen(path: Path, old: np.dtype[Any], new: np.dtype[Any]) -> BinaryIO:
    """Rewrite the file with its ids in a wider type. Returns it, open for more ids."""
    narrow = path.replace(path.with_suffix(".narrow"))
    file = path.open("wb")
    with narrow.open("rb") as source:
        while len(ids := np.fromfile(source, old, CHUNK)):
            file.write(ids.astype(new).data)
    narrow.unlink()
    return file


def _shuffle(folder: Path, ids: Ids, encoder: Encoder) -> list[int]:
    """Shuffle the lines in the file, without the blank ones. Returns the counts by raw id."""
    starts = shuffle_documents(ids, encoder.chars, folder / "shuffled")
    (folder / STARTS).write_bytes(starts.data)
    (folder / "shuffled").replace(folder / IDS)
    ids, counts = map_file(folder / IDS, ids.dtype), np.zeros(len(encoder.chars), np.int64)
    for i in range(0, len(ids), CHUNK):
        counts += np.bincount(ids[i : i + CHUNK], minlength=len(counts))
    return counts.tolist()


def map_file(path: Path, dtype: str | np.dtype[Any]) -> NDArray[Any]:
    """A memory map of the numbers in a file (N,)."""
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r"))


def hash_of(file: Any) -> str:
    """The SHA-256 of an open binary file, in hexadecimal digits."""
    return hashlib.file_digest(file, "sha256").hexdigest()
