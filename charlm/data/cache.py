"""Encoded texts on the disk. A text is encoded once; its folder is complete or does not exist.

<cache>/encoded/<key>/       the files that build.py writes, and facts.json: `Facts` and their hash
<cache>/encoded/seen/<key>   a note for files that were read before: the key of their text

The key of a text is a hash of its content. Files are not read again if their paths, sizes and times
are those of a note. As in git, this is not done for files that were written a moment before they
were read: they can change again and keep their times. verify.py says what is checked when a text
is opened. <cache> is $CHARLM_CACHE, or the cache folder of the system. It is not used if other
users can write to it. All of it may be deleted, but then texts from a pipe must be piped in again.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from charlm.config import DataConfig
from charlm.data.build import FORMAT, Facts, build
from charlm.data.sources import Source, stamp_of
from charlm.data.verify import AlteredError, Encoded, open_folder, seal, write_facts
from charlm.errors import DataError
from charlm.files import (
    REMEDY,
    ExposedError,
    build_folder,
    cache_folder,
    check_private,
    discard_folder,
    flush,
    open_private,
    private_folder,
    remove_abandoned,
)

# Seconds within which a file can change and keep its times. The longer time is for file systems
# that store whole seconds (ext3, HFS+) or every other second (FAT).
_CLOCK_TICK, _COARSE_TICK = 0.1, 3.0
_FILES = re.compile(r"facts\.json(\.tmp|-[0-9a-f]{16})?|ids\.(bin|narrow)|starts\.bin|shuffled")


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
    note, problem = _note_path(stamps, data), _problem()
    if expected and any(source.once for source in sources):
        key: str | None = _key(expected, data)
    else:
        key = _read_note(note)
    notices: list[str] = []
    if not problem:
        remove_abandoned(root, _FILES)
    if not problem and key and os.path.isdir(root / key):  # noqa: PTH112  (is_dir can raise)
        try:
            return _open(root / key, data, notices)
        except AlteredError as damage:
            notices.append(f"{root / key}: {damage}; the text is encoded again")
            discard_folder(root / key, _FILES)
    problem = problem or _problem(write=True)
    if problem:
        return _encode_temporarily(sources, data, [*notices, problem])
    with _write_errors_reported(root), build_folder(root, _FILES) as folder:
        facts = _build(folder, sources, data)
        key = _key(facts.sha256, data)
        encoded = _publish(folder, root / key, data, notices)
        with suppress(OSError, DataError):  # the note only saves time
            if stamps and stamps == _stamps(sources) and _are_older(stamps, began):
                note.parent.mkdir(0o755, exist_ok=True)
                check_private(note.parent, note.parent.lstat())
                note.unlink(missing_ok=True)  # a link is not followed
                note.touch(0o644, exist_ok=False)
                note.write_text(key)  # a process that is killed here leaves no valid key
    return encoded


def bytes_to_read(sources: Sequence[Source], data: DataConfig) -> int:
    """The number of bytes to read from files to open this text; 0 if they were read before.

    Sources that are not files have an unknown size and count as 0.
    """
    stamps = _stamps(sources)
    known = not _problem() and _read_note(_note_path(stamps, data))
    return 0 if known else sum(size for *_, size, _, _ in stamps)


def _root() -> Path:
    return cache_folder() / "encoded"


def _encode_temporarily(sources: Sequence[Source], data: DataConfig, notices: list[str]) -> Encoded:
    """Encode the text into a temporary folder. It is removed when the text is no longer used."""
    with _write_errors_reported(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp(prefix="charlm-"))
    try:
        with _write_errors_reported(folder):
            _build(folder, sources, data)
            encoded = _open_built(folder, data, notices)
    except BaseException:
        discard_folder(folder, _FILES)
        raise
    weakref.finalize(encoded, discard_folder, folder, _FILES)
    return encoded


def _problem(write: bool = False) -> str | None:
    """Why the cache cannot be used, or not written if `write`, as a notice; None if it can."""
    then = "so the text is encoded for this run only"
    try:
        folder = private_folder("encoded", create=write)
        if write:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except ExposedError as error:
        return f"{error.filename}: {error.strerror}, {then}; {REMEDY}"
    except OSError as error:
        return (
            f"{_root()}: cannot write here ({error.strerror}), {then}; set CHARLM_CACHE to another "
            "folder to keep it"
        )
    return None


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


def _key(sha256: str, data: DataConfig) -> str:
    """The key of the text with this hash. It does not depend on the sources of the text."""
    return seal([FORMAT, sha256, data.unit, data.documents])


def _note_path(stamps: list[list[Any]], data: DataConfig) -> Path:
    """The file that holds the key of the text that files with these stamps have."""
    return _root() / "seen" / seal([FORMAT, _options(data), stamps])


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
    """Whether each change of the files after time `began` (s) gives them other times."""
    return all(began - max(stamp[-2:]) / 1e9 > _tick(stamp[-2:]) for stamp in stamps)


def _tick(times: list[int]) -> float:
    """The resolution (s) of the times of a file (ns). It is coarse if they are whole seconds."""
    return _CLOCK_TICK if all(time_ % 10**9 for time_ in times) else _COARSE_TICK


def _read_note(note: Path) -> str | None:
    """The key in a note, or None.

    A damaged note is ignored: the key becomes the name of a folder, which may be deleted.
    """
    with suppress(OSError), open_private(note) as file:
        key = file.read(65).decode("latin-1")
        if re.fullmatch("[0-9a-f]{64}", key):
            return key
    return None


# --- writing ----------------------------------------------------------------------------------


def _build(folder: Path, sources: Sequence[Source], data: DataConfig) -> Facts:
    """Write the files of a text and facts.json, and flush them to the disk."""
    facts = build(folder, sources, data)
    write_facts(folder, facts)
    for path in folder.iterdir():
        with path.open("rb+") as file:
            flush(file.fileno())
    return facts


def _publish(folder: Path, target: Path, data: DataConfig, notices: list[str]) -> Encoded:
    """Rename the folder to its final name, unless another process has already made that one."""
    try:
        folder.rename(target)
    except OSError:
        with suppress(AlteredError):
            return _open(target, data, notices)
        discard_folder(target, _FILES)
        if os.path.lexists(target):
            raise DataError(
                f"{target}: there are other files in the place of the encoded text; move them "
                "away, or set CHARLM_CACHE to another folder"
            ) from None
        folder.rename(target)
    return _open_built(target, data, notices)


# --- opening ----------------------------------------------------------------------------------


def _open(folder: Path, data: DataConfig, notices: list[str]) -> Encoded:
    """Open the text in a folder that has the name of its key.

    Raises:
        AlteredError: it is not as it was written.
    """
    encoded = open_folder(folder, data, notices)
    if folder.name != _key(encoded.facts.sha256, data):
        raise AlteredError("its facts.json is that of another text")
    return encoded


def _open_built(folder: Path, data: DataConfig, notices: list[str]) -> Encoded:
    """Open a text that was just written."""
    try:
        return open_folder(folder, data, notices)
    except AlteredError as damage:
        raise DataError(
            f"{folder}: {damage}, just after it was written; set CHARLM_CACHE to another folder"
        ) from damage
