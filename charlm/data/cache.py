"""Texts encoded once, on the disk: a folder for each, made whole or not at all.

<cache>/encoded/<key>/       what build.py writes, and facts.json: its `Facts`, with a seal
<cache>/encoded/seen/<key>   a file with the key of the text that such files had before

The key of a text is made of its content. Files that were read before and have not changed since,
by their size and times, are not read again: the way git does it, and as careful with files that
were just written. <cache> is $CHARLM_CACHE, or the folder that the system keeps for such; all of
it may be deleted, though a text that was piped in then has to be piped in again.
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

_JUST_NOW = 0.1  # seconds in which a file can change and keep its times


@dataclass(frozen=True)
class Encoded:
    """A text of N characters on the disk.

    `ids` (N,) and `starts` (n_items + 1,) are maps of files; only a list of items has starts.
    """

    facts: Facts
    ids: Ids
    starts: NDArray[np.int64] | None
    notices: list[str] = field(default_factory=list)


def open_encoded(
    sources: Sequence[Source], data: DataConfig, expected: str | None = None
) -> Encoded:
    """The text of the sources, read as `data` says; encoded now, unless that was done before.

    Args:
        expected: the SHA-256 of a text out of a pipe, which cannot be read twice.

    Raises:
        DataError: the text cannot be read or is empty; it cannot be written encoded.
    """
    root, began, stamps = _root(), time.time(), _stamps(sources)
    seen = _seen(stamps, data)
    again = expected and any(source.once for source in sources)
    key = _key(expected, data) if expected and again else _read_seen(seen)
    notices: list[str] = []
    if key and (root / key).is_dir():
        try:
            return _open(root / key)
        except _DamageError as damage:
            notices.append(f"{root / key}: {damage}; the text is encoded anew")
            _remove(root / key)
    trouble = _trouble_with(root)
    if trouble:
        return _encode_for_now(sources, data, [*notices, trouble])
    with _writing(root), _workshop(root) as folder:
        facts = _build_sealed(folder, sources, data)
        key = _key(facts.sha256, data)
        encoded = _publish(folder, root / key, notices)
        with suppress(OSError, DataError):  # a note only saves time
            if stamps and stamps == _stamps(sources) and _are_older(stamps, began):
                seen.parent.mkdir(exist_ok=True)
                _replace(seen, key)
    return encoded


def bytes_to_read(sources: Sequence[Source], data: DataConfig) -> int:
    """How many bytes of files have to be read to open this text: none if they were before."""
    stamps = _stamps(sources)
    return 0 if _read_seen(_seen(stamps, data)) else sum(size for *_, size, _, _ in stamps)


def _root() -> Path:
    return cache_folder() / "encoded"


def _encode_for_now(sources: Sequence[Source], data: DataConfig, notices: list[str]) -> Encoded:
    """The text, encoded in a place for temporary files, for as long as it is used."""
    with _writing(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="charlm-"))
    try:
        with _writing(folder):
            _build_sealed(folder, sources, data)
            encoded = _open(folder, notices)
    except BaseException:
        _remove(folder)
        raise
    weakref.finalize(encoded, _remove, folder)
    return encoded


def _trouble_with(root: Path) -> str | None:
    """Why nothing can be written to the cache, in a line."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return None
    except OSError as error:
        return (
            f"{root}: cannot write here ({error.strerror}), so the text is encoded for this time "
            "only; CHARLM_CACHE can name another folder"
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Say in one line what the disk did not let us do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the encoded text here: {error.strerror}; make room, or name "
            "another folder in CHARLM_CACHE"
        ) from error


# --- keys -------------------------------------------------------------------------------------


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _key(sha256: str, data: DataConfig) -> str:
    """Of a text with this content; what it was made from does not matter any more."""
    return _hash_of([FORMAT, sha256, data.unit, data.documents])


def _seen(stamps: list[list[Any]], data: DataConfig) -> Path:
    """Where the key of the text is noted that files with these stamps have."""
    return _root() / "seen" / _hash_of([FORMAT, _options(data), stamps])


def _options(data: DataConfig) -> list[str]:
    """The settings that say how bytes are read."""
    names = ("separator", "documents", "unit", "encoding", "errors", "normalize", "newlines")
    return [getattr(data, name) for name in names]


def _stamps(sources: Sequence[Source]) -> list[list[Any]]:
    """What tells the files and whether they changed; nothing where a source is no file."""
    if not all(source.path for source in sources):
        return []
    try:
        return [[os.path.abspath(s.path), *stamp_of(s.path)] for s in sources if s.path]  # noqa: PTH100
    except OSError as error:
        raise DataError(f"{error.filename}: cannot read this text: {error.strerror}") from error


def _are_older(stamps: list[list[Any]], began: float) -> bool:
    """Whether no file can have changed since then (s) without changing its times."""
    return all(began - max(stamp[-2:]) / 1e9 > _JUST_NOW for stamp in stamps)


def _read_seen(seen: Path) -> str | None:
    """The key in a note, if it is one: it will be the name of a folder, maybe of one to delete."""
    with suppress(OSError, UnicodeDecodeError):
        key = seen.read_text(encoding="utf-8")
        if re.fullmatch("[0-9a-f]{64}", key):
            return key
    return None


# --- making -----------------------------------------------------------------------------------


@contextmanager
def _workshop(root: Path) -> Iterator[Path]:
    """A new folder to build in, gone afterwards; those of processes that were killed go now."""
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
            folder.mkdir()  # unlike mkdtemp's, for others to read if the cache is
            stack.callback(_remove, folder)
            stack.enter_context(locked(folder, wait=False))
        yield folder


def _remove(folder: Path) -> None:
    """Remove a folder of ours: the files that are made in one, and nothing else whatever."""
    with suppress(OSError):
        for pattern in ("facts*", "ids.*", "starts.*", "shuffled"):
            for path in folder.glob(pattern):
                path.unlink()
        folder.rmdir()


def _build_sealed(folder: Path, sources: Sequence[Source], data: DataConfig) -> Facts:
    facts = build(folder, sources, data)
    _seal(folder, facts)
    for path in folder.iterdir():  # on the disk before it has its name
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    return facts


def _publish(folder: Path, target: Path, notices: list[str]) -> Encoded:
    """Give what was built its name, unless another process was faster."""
    try:
        folder.rename(target)
    except OSError:
        with suppress(_DamageError):
            return _open(target, notices)
        _remove(target)
        folder.rename(target)
    return _open(target, notices)


def _seal(folder: Path, facts: Facts) -> None:
    body = facts.model_dump(mode="json")
    _replace(folder / "facts.json", json.dumps({"seal": _hash_of(body), "facts": body}))


def _replace(path: Path, text: str) -> None:
    """Write a small file so that it is the old one, whole, or the new."""
    temporary = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# --- opening ----------------------------------------------------------------------------------


class _DamageError(Exception):
    """An encoded text is not what it was when it was written."""


def _open(folder: Path, notices: list[str] | None = None) -> Encoded:
    """The text in a folder, after a look whether it is what was written there.

    Raises:
        _DamageError: it is not.
    """
    facts = _read_facts(folder)
    now = {name: _check(folder / name, was) for name, was in facts.files.items()}
    if now != facts.files:  # moved or copied, and read through: known by its stamps from now on
        with suppress(OSError):
            _seal(folder, facts.model_copy(update={"files": now}))
    starts = map_file(folder / STARTS, "int64") if STARTS in facts.files else None
    return Encoded(facts, map_file(folder / IDS, facts.dtype), starts, notices or [])


def _read_facts(folder: Path) -> Facts:
    try:
        sealed = json.loads((folder / "facts.json").read_bytes())
        if sealed["seal"] != _hash_of(sealed["facts"]):
            raise ValueError
        return Facts.model_validate(sealed["facts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise _DamageError("its facts.json is damaged") from error
    except OSError as error:
        raise _unreadable(error) from error


def _check(path: Path, was: FileFacts) -> FileFacts:
    """The file as it is; its content is what it was."""
    try:
        stamp = stamp_of(path)
        if stamp != was.stamp and hash_file(path) != was.sha256:
            raise _DamageError(f"its {path.name} was altered or cut short")
    except FileNotFoundError as error:
        raise _DamageError(f"its {path.name} is missing") from error
    except OSError as error:
        raise _unreadable(error) from error
    return FileFacts(sha256=was.sha256, stamp=stamp)


def _unreadable(error: OSError) -> DataError:
    """No reason to doubt a text, let alone to remove it."""
    return DataError(
        f"{error.filename}: cannot read this encoded text: {error.strerror}; let it be read, or "
        "name another folder in CHARLM_CACHE"
    )
