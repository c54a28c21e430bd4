"""Encoded texts on the disk. A text is encoded once; its folder is complete or does not exist.

<cache>/encoded/<key>/       the files that build.py writes, and facts.json: `Facts` and their hash
<cache>/encoded/seen/<key>   a note for files that were read before: the key of their text

The key of a text is a hash of its content. Files are not read again if their paths, sizes and times
are those of a note. As in git, this is not done for files that were written a moment before they
were read: they can change again and keep their times. <cache> is $CHARLM_CACHE, or the cache folder
of the system. All of it may be deleted, but then texts from a pipe must be piped in again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from charlm.config import DataConfig
from charlm.data.build import FORMAT, IDS, STARTS, Facts, FileFacts, build, hash_file, map_file
from charlm.data.sources import Source, stamp_of
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.files import CAN_LOCK, cache_folder, locked

_CLOCK_TICK = 0.1  # seconds within which a file can change and keep its times


@dataclass(frozen=True)
class Encoded:
    """A text of N characters on the disk.

    `ids` (N,) and `starts` (n_documents + 1,) are memory maps of files. Only a list has starts.
    """

    facts: Facts
    ids: Ids
    starts: NDArray[np.int64] | None
    notices: list[str] = field(default_factory=list)


def open_encoded(
    sources: Sequence[Source], data: DataConfig, expected: str | None = None
) -> Encoded:
    """Open the text of the sources, read as `data` says. Encodes it if the cache does not have it.

    Args:
        sources: the files, pipes or other sources of the text.
        data: the settings that say how their bytes are read.
        expected: the SHA-256 of a text that was piped in before. A pipe cannot be read twice, so
            its text is looked up by this hash.

    Raises:
        DataError: the text cannot be read or is empty, or the encoded text cannot be written.
    """
    root, began, stamps = _root(), time.time(), _stamps(sources)
    note = _note_path(stamps, data)
    if expected and any(source.once for source in sources):
        key: str | None = _key(expected, data)
    else:
        key = _read_note(note)
    notices: list[str] = []
    if key and (root / key).is_dir():
        try:
            return _open(root / key)
        except _DamageError as damage:
            notices.append(f"{root / key}: {damage}; the text is encoded again")
            _remove(root / key)
    problem = _write_problem(root)
    if problem:
        return _encode_temporarily(sources, data, [*notices, problem])
    with _write_errors_reported(root), _build_folder(root) as folder:
        facts = _build(folder, sources, data)
        key = _key(facts.sha256, data)
        encoded = _publish(folder, root / key, notices)
        with suppress(OSError, DataError):  # the note only saves time
            if stamps and stamps == _stamps(sources) and _are_older(stamps, began):
                note.parent.mkdir(exist_ok=True)
                _write_atomically(note, key)
    return encoded


def bytes_to_read(sources: Sequence[Source], data: DataConfig) -> int:
    """The number of bytes to read from files to open this text; 0 if they were read before.

    Sources that are not files have an unknown size and count as 0.
    """
    stamps = _stamps(sources)
    return 0 if _read_note(_note_path(stamps, data)) else sum(size for *_, size, _, _ in stamps)


def _root() -> Path:
    return cache_folder() / "encoded"


def _encode_temporarily(sources: Sequence[Source], data: DataConfig, notices: list[str]) -> Encoded:
    """Encode the text into a temporary folder. It is removed when the text is no longer used."""
    with _write_errors_reported(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="charlm-"))
    try:
        with _write_errors_reported(folder):
            _build(folder, sources, data)
            encoded = _open(folder, notices)
    except BaseException:
        _remove(folder)
        raise
    weakref.finalize(encoded, _remove, folder)
    return encoded


def _write_problem(root: Path) -> str | None:
    """A notice why nothing can be written to the cache; None if it can be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return None
    except OSError as error:
        return (
            f"{root}: cannot write here ({error.strerror}), so the text is encoded for this run "
            "only; set CHARLM_CACHE to another folder to keep it"
        )


@contextmanager
def _write_errors_reported(folder: Path) -> Iterator[None]:
    """Turn an OSError into a message of one line."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the encoded text here: {error.strerror}; free some space, or "
            "set CHARLM_CACHE to another folder"
        ) from error


# --- keys -------------------------------------------------------------------------------------


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _key(sha256: str, data: DataConfig) -> str:
    """The key of the text with this hash. It does not depend on the sources of the text."""
    return _hash_of([FORMAT, sha256, data.unit, data.documents])


def _note_path(stamps: list[list[Any]], data: DataConfig) -> Path:
    """The file that holds the key of the text that files with these stamps have."""
    return _root() / "seen" / _hash_of([FORMAT, _options(data), stamps])


def _options(data: DataConfig) -> list[str]:
    """The settings that say how bytes are read."""
    names = ("separator", "documents", "unit", "encoding", "errors", "normalize", "newlines")
    return [getattr(data, name) for name in names]


def _stamps(sources: Sequence[Source]) -> list[list[Any]]:
    """The path and the stamp of each file; nothing if a source is not a file."""
    if not all(source.path for source in sources):
        return []
    try:
        return [[os.path.abspath(s.path), *stamp_of(s.path)] for s in sources if s.path]  # noqa: PTH100
    except OSError as error:
        raise DataError(f"{error.filename}: cannot read this text: {error.strerror}") from error


def _are_older(stamps: list[list[Any]], began: float) -> bool:
    """Whether any change of the files after time `began` (s) must show in their times."""
    return all(began - max(stamp[-2:]) / 1e9 > _CLOCK_TICK for stamp in stamps)


def _read_note(note: Path) -> str | None:
    """The key in a note, or None.

    A damaged note is ignored: the key becomes the name of a folder, which may be deleted.
    """
    with suppress(OSError, UnicodeDecodeError):
        key = note.read_text(encoding="utf-8")
        if re.fullmatch("[0-9a-f]{64}", key):
            return key
    return None


# --- writing ----------------------------------------------------------------------------------


@contextmanager
def _build_folder(root: Path) -> Iterator[Path]:
    """A new folder to build in, removed at the end. Also removes those that killed processes left.

    A process holds a lock on its folder, so an unlocked folder is abandoned.
    """
    with ExitStack() as stack:
        with locked(root, wait=True):
            for old in root.glob("tmp-*") if CAN_LOCK else ():
                with (
                    suppress(FileNotFoundError, PermissionError),
                    locked(old, wait=False) as abandoned,
                ):
                    if abandoned:
                        _remove(old)
            folder = root / f"tmp-{secrets.token_hex(8)}"
            folder.mkdir()  # not by mkdtemp: other users may read it if they may read the cache
            stack.callback(_remove, folder)
            stack.enter_context(locked(folder, wait=False))
        yield folder


def _remove(folder: Path) -> None:
    """Remove the folder of an encoded text: only files with the names that are written there."""
    with suppress(OSError):
        for pattern in ("facts*", "ids.*", "starts.*", "shuffled"):
            for path in folder.glob(pattern):
                path.unlink()
        folder.rmdir()


def _build(folder: Path, sources: Sequence[Source], data: DataConfig) -> Facts:
    """Write the files of a text and facts.json, and flush them to the disk."""
    facts = build(folder, sources, data)
    _write_facts(folder, facts)
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    return facts


def _publish(folder: Path, target: Path, notices: list[str]) -> Encoded:
    """Rename the folder to its final name, unless another process has already made that one."""
    try:
        folder.rename(target)
    except OSError:
        with suppress(_DamageError):
            return _open(target, notices)
        _remove(target)
        folder.rename(target)
    return _open(target, notices)


def _write_facts(folder: Path, facts: Facts) -> None:
    body = facts.model_dump(mode="json")
    _write_atomically(folder / "facts.json", json.dumps({"seal": _hash_of(body), "facts": body}))


def _write_atomically(path: Path, text: str) -> None:
    """Write a small file. At any moment it has the complete old text or the complete new text."""
    temporary = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# --- opening ----------------------------------------------------------------------------------


class _DamageError(Exception):
    """An encoded text has changed since it was written."""


def _open(folder: Path, notices: list[str] | None = None) -> Encoded:
    """Open the text in a folder, if it is still as it was written.

    Raises:
        _DamageError: it has changed.
    """
    facts = _read_facts(folder)
    now = {name: _verify(folder / name, written) for name, written in facts.files.items()}
    if now != facts.files:  # moved or copied: with the new stamps it need not be hashed next time
        with suppress(OSError):
            _write_facts(folder, facts.model_copy(update={"files": now}))
    starts = map_file(folder / STARTS, "int64") if STARTS in facts.files else None
    return Encoded(facts, map_file(folder / IDS, facts.dtype), starts, notices or [])


def _read_facts(folder: Path) -> Facts:
    try:
        stored = json.loads((folder / "facts.json").read_bytes())
        if stored["seal"] != _hash_of(stored["facts"]):
            raise ValueError
        return Facts.model_validate(stored["facts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise _DamageError("its facts.json is damaged") from error
    except OSError as error:
        raise _unreadable(error) from error


def _verify(path: Path, written: FileFacts) -> FileFacts:
    """The facts of a file with its stamp of now.

    Raises:
        _DamageError: its content has changed since it was written.
    """
    try:
        stamp = stamp_of(path)
        if stamp != written.stamp and hash_file(path) != written.sha256:
            raise _DamageError(f"its {path.name} was altered or cut short")
    except FileNotFoundError as error:
        raise _DamageError(f"its {path.name} is missing") from error
    except OSError as error:
        raise _unreadable(error) from error
    return FileFacts(sha256=written.sha256, stamp=stamp)


def _unreadable(error: OSError) -> DataError:
    """An error for a file that may be undamaged, so that its text is not removed."""
    return DataError(
        f"{error.filename}: cannot read this encoded text: {error.strerror}; make it readable, "
        "or set CHARLM_CACHE to another folder"
    )
