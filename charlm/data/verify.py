"""Opening an encoded text, and what is checked then.

Other users cannot change an encoded text: a folder or a file that they can write to is refused, and
links are not followed. Against accidents, and files that come from elsewhere, there are checks.

At every opening: facts.json has the hash of its own content. The facts fit the settings, each
other, and the sizes of the files. The documents of a list cover the text in order. `cache` compares
the hash of the text with the name of the folder.

When the stamp of a file is not the recorded one, as after copying: the files have the recorded
hashes, each id has a character, and the number of each character is the one in the facts. The
decoded text has the recorded hash. (The text of a list cannot be compared, since it is shuffled.)

Reading all of a large text takes too long for every opening, so files with the recorded stamps are
trusted. A program of this user can forge the facts with these stamps, and so give another text. But
it cannot give an id that is not in the vocabulary: `TextIds` raises a DataError for it. The ids are
mapped from the disk, so the process ends if another one cuts their file short. charlm never does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from charlm.config import DataConfig
from charlm.data.build import FORMAT, IDS, STARTS, Facts, FileFacts, hash_of, hashed_bytes
from charlm.data.sources import stamp_of
from charlm.data.vocab import CHUNK_CHARS, Ids
from charlm.errors import DataError
from charlm.files import ExposedError, check_private, locked, open_private, write_file

FACTS = "facts.json"
TEMPORARY = "facts.json.tmp"
_MAX_FACTS = 1 << 25  # bytes; the facts of a text with all characters of Unicode are shorter


@dataclass(frozen=True)
class Encoded:
    """A text of N characters on the disk.

    `ids` (N,) and `starts` (n_documents + 1,) are memory maps of files. Only a list has starts.
    """

    facts: Facts
    ids: Ids
    starts: NDArray[np.int64] | None
    notices: list[str] = field(default_factory=list)


class AlteredError(Exception):
    """An encoded text is not as it was written, or others can change it."""


def open_folder(folder: Path, data: DataConfig, notices: list[str]) -> Encoded:
    """Open the encoded text in a folder, if it is still as it was written.

    Args:
        folder: the folder.
        data: the settings with which it was written.
        notices: notices for the user.

    Raises:
        AlteredError: it has changed.
        DataError: it cannot be read, but may be unchanged.
    """
    with _reported(folder, "folder"):
        check_private(folder, folder.lstat())
    facts = _read_facts(folder, data)
    starts = None
    now: dict[str, FileFacts] = {}
    for name, written in facts.files.items():
        with _reported(folder / name), open_private(folder / name) as file:
            if name == IDS:  # this checks the size, so it is done before the file is hashed
                ids = _map(file, facts.dtype, sum(facts.counts))
            else:
                starts = _map_starts(file, sum(facts.counts))
            now[name] = _verify(file, written)
    # A count of 0 is possible in a list. But a character without an occurrence has no id, so a
    # wrong 0 must not be trusted.
    if now != facts.files or 0 in facts.counts:
        _verify_ids(ids, facts, data)
    if now != facts.files:  # with the new stamps, they need not be read in full next time
        with suppress(OSError), locked(folder, wait=False) as is_locked:
            if is_locked:  # else another process does the same now
                write_facts(folder, facts.model_copy(update={"files": now}))
    return Encoded(facts, ids, starts, notices)


@contextmanager
def _reported(path: Path, name: str = "") -> Iterator[None]:
    """Turn an OSError of a file, or of a folder with this name, into the errors above."""
    name = name or path.name
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AlteredError(f"its {name} is missing") from error
    except ExposedError as error:
        raise AlteredError(f"its {name} is not used: {error.strerror}") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot read this encoded text: {error.strerror}; make it readable, or set "
            "CHARLM_CACHE to another folder"
        ) from error


# --- the facts ----------------------------------------------------------------------------------


def seal(value: Any) -> str:
    """The hash of a value of JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def write_facts(folder: Path, facts: Facts) -> None:
    """Write facts.json; no other process may write it meanwhile."""
    body = facts.model_dump(mode="json")
    content = json.dumps({"seal": seal(body), "facts": body}).encode()
    write_file(folder / FACTS, content, folder / TEMPORARY, 0o644)


def _read_facts(folder: Path, data: DataConfig) -> Facts:
    path = folder / FACTS
    with _reported(path), open_private(path) as file:
        size = os.fstat(file.fileno()).st_size
        raw = file.read(min(size, _MAX_FACTS))  # read(n) takes n bytes of memory at once
    try:
        stored = json.loads(raw)
        facts = Facts.model_validate(stored["facts"])
        facts.chars.encode()  # no lone surrogates
        if stored["seal"] != seal(stored["facts"]) or not _are_consistent(facts, data):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AlteredError(f"its {FACTS} is damaged") from error
    return facts


def _are_consistent(facts: Facts, data: DataConfig) -> bool:
    """Whether the facts agree with each other and with the settings."""
    V = len(facts.chars)
    return (
        facts.format == FORMAT
        and len(set(facts.chars)) == V == len(facts.counts) > 0
        and min(facts.counts) >= 0
        and sum(facts.counts) > 0
        and facts.dtype == str(np.min_scalar_type(V - 1))
        and facts.files.keys() == ({IDS, STARTS} if data.documents == "lines" else {IDS})
        and (data.unit == "char" or max(facts.chars) <= "\xff")
    )


# --- the files ----------------------------------------------------------------------------------


def _altered(file: BinaryIO) -> AlteredError:
    return AlteredError(f"its {Path(file.name).name} was altered or cut short")


def _verify(file: BinaryIO, written: FileFacts) -> FileFacts:
    """The facts of a file with its current stamp. Its content must not have changed."""
    stamp = stamp_of(file.fileno())
    file.seek(0)  # numpy has moved it
    if stamp != written.stamp and hash_of(file) != written.sha256:
        raise _altered(file)
    return FileFacts(sha256=written.sha256, stamp=stamp)


def _map(file: BinaryIO, dtype: str, n: int) -> NDArray[Any]:
    """A memory map of the n numbers in a file (n,), n > 0."""
    if os.fstat(file.fileno()).st_size != n * np.dtype(dtype).itemsize:
        raise _altered(file)
    return np.asarray(np.memmap(file, dtype, "r", shape=(n,)))


def _map_starts(file: BinaryIO, N: int) -> NDArray[np.int64]:
    """A memory map of the starts of the documents that cover N characters (n_documents + 1,)."""
    n = os.fstat(file.fileno()).st_size // 8
    if n < 2:
        raise _altered(file)
    starts = _map(file, "int64", n)
    if starts[0] != 0 or starts[-1] != N or not (starts[:-1] < starts[1:]).all():
        raise _altered(file)
    return starts


def _verify_ids(ids: Ids, facts: Facts, data: DataConfig) -> None:
    """Read all ids, and compare them with the facts."""
    V, digest = len(facts.chars), hashlib.sha256()
    codes = np.array([ord(char) for char in facts.chars], "<u4")
    counts = np.zeros(V, np.int64)
    for start in range(0, len(ids), CHUNK_CHARS):
        chunk = ids[start : start + CHUNK_CHARS]
        if chunk.max() >= V:
            break  # the counts stay too small
        counts += np.bincount(chunk, minlength=V)
        if data.documents != "lines":
            digest.update(hashed_bytes(codes[chunk].tobytes().decode("utf-32-le"), data.unit))
    is_text = data.documents == "lines" or digest.hexdigest() == facts.sha256
    if counts.tolist() != facts.counts or not is_text:
        raise AlteredError(f"its {IDS} does not match its {FACTS}")
