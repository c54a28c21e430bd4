"""Where the bytes of a text come from: files, folders, globs, standard input, known names."""

from __future__ import annotations

import bz2
import fnmatch
import glob
import gzip
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from charlm.config import DataConfig
from charlm.data import library
from charlm.data.builtin import PREFIX, read_builtin
from charlm.errors import DataError

CHUNK = 1 << 20  # bytes read at a time
_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Source:
    """One source of bytes.

    Args:
        name: The name in messages.
        open: Opens the source for reading.
        path: The path of a regular file, whose stamp (`stamp_of`) changes when the file changes.
            None for other sources.
        encoding: The encoding, if the source does not follow `data.encoding`.
        found: Whether a folder or a glob found the file. False if the user named it.
        once: Whether the source is a pipe, which cannot be read twice.
    """

    name: str
    open: Callable[[], IO[bytes]]
    path: Path | None = None
    encoding: str | None = None
    found: bool = False
    once: bool = False

    def chunks(self) -> Iterator[bytes]:
        """The bytes, `CHUNK` at a time.

        Raises:
            DataError: The source cannot be read. The message says what to do.
        """
        with _reported(self.name, self.found), self.open() as file:
            while chunk := file.read(CHUNK):
                yield chunk


@contextmanager
def _reported(name: str, found: bool) -> Iterator[None]:
    """Turns an error in reading into a `DataError` of one line."""
    hint = "; repair it, or leave it out with data.exclude" if found else ""
    try:
        yield
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{name}: this compressed file is damaged: {error}{hint}") from error
    except EOFError as error:
        raise DataError(f"{name}: this compressed file is cut short{hint}") from error
    except OSError as error:
        reason = error.strerror or str(error)  # bz2 sets no strerror
        raise DataError(f"{name}: cannot read this text: {reason}{hint}") from error


def find_sources(path: Sequence[str], data: DataConfig) -> list[Source]:
    """The sources that `path` names, in this order. Files of a folder or glob are sorted by path.

    Raises:
        DataError: A path does not exist, or a folder or glob has no matching file.
    """
    return [source for entry in path for source in _find(entry, data)]


def _find(entry: str, data: DataConfig) -> list[Source]:
    if entry == "-":
        return [Source("standard input", _open_stdin, once=True)]
    if entry.startswith(PREFIX):
        return [_builtin(entry)]
    if "://" in entry and not os.path.lexists(entry):
        raise DataError(f"{entry}: not a file; download it, and give the file that you saved")
    if "\0" in entry:
        raise DataError(f"{entry!r}: a path cannot contain a NUL")
    try:
        path = Path(entry).expanduser()
    except RuntimeError as error:
        raise DataError(f"{entry}: this user does not exist") from error
    with _reported(str(path), found=False):
        if path.is_dir():
            return _walk(path, data)
        if not os.path.lexists(path):
            if entry in library.KNOWN:
                return [_file(library.find(entry), found=False)]
            if glob.has_magic(entry):
                return _glob(entry, str(path), data)
    return [_file(path, found=False)]


def _open_stdin() -> IO[bytes]:
    if os.isatty(0):
        raise DataError("data.path is -, but nothing is piped to standard input; try: cat TEXT |")
    os.set_blocking(0, True)  # otherwise a pause looks like the end of the input
    return io.FileIO(os.dup(0))


def _builtin(entry: str) -> Source:
    return Source(entry, lambda: io.BytesIO(read_builtin(entry).encode()), encoding="utf-8")


def _file(path: Path, found: bool) -> Source:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        close = None if found else library.similar(str(path))
        hint = f"; did you mean the corpus {close}?" if close else ""
        hint = hint or "; leave it out with data.exclude" * found
        raise DataError(f"{path}: cannot read this text: {error.strerror}{hint}") from error
    opener = _OPENERS.get(path.suffix.lower(), io.FileIO)
    regular = stat.S_ISREG(mode)  # the stamp of a pipe does not show a change
    stamped = path if regular else None
    return Source(str(path), lambda: opener(path), stamped, found=found, once=not regular)


def describe_sources(sources: Sequence[Source]) -> str:
    """`a.txt`, or `a.txt and 12 more`."""
    more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
    return sources[0].name + more


def stamp_of(path: Path) -> list[int]:
    """Numbers that differ for another file and after a change.

    Returns:
        Device, inode, size in bytes, and the times of modification and of change in nanoseconds.
    """
    it = path.stat()
    return [it.st_dev, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns]


def _walk(root: Path, data: DataConfig) -> list[Source]:
    """The files of a folder that `data.include` and `data.exclude` select, without hidden files."""

    def fail(error: OSError) -> None:
        raise error

    names = []
    for folder, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root).parts
        names += ["/".join((*below, name)) for name in files if not name.startswith(".")]
    included, excluded = _any_of(data.include), _any_of(data.exclude)
    selected = [
        name
        for name in names
        if (not data.include or _matches(name, included)) and not _matches(name, excluded)
    ]
    if not selected:
        among = f" among its {len(names):,} files that are not hidden" if names else ""
        patterns = " that data.include and data.exclude select" * bool(data.include or data.exclude)
        raise DataError(f"{root}: this folder has no text{patterns}{among}")
    return _regular(root / name for name in sorted(selected, key=_path_order))


def _glob(entry: str, pattern: str, data: DataConfig) -> list[Source]:
    names = [name for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    excluded, fixed = _any_of(data.exclude), glob.escape(pattern).find("[")
    # The names of folders before the first wildcard are not compared with data.exclude.
    above = pattern[:fixed].rpartition("/")[0]
    selected = [
        name
        for name in names
        if not excluded.match(name) and not _matches(name[len(above) :].lstrip("/"), excluded)
    ]
    if not selected:
        but = ", except files that data.exclude leaves out" * bool(names)
        raise DataError(f"{entry}: no file matches this pattern{but}")
    return _regular(Path(name) for name in sorted(set(selected), key=_path_order))


def _regular(paths: Iterable[Path]) -> list[Source]:
    """The sources of regular files. Pipes and sockets are left out."""
    return [source for path in paths if (source := _file(path, found=True)).path]


def _path_order(name: str) -> list[str]:
    """The sort key of a path: its parts."""
    return name.split("/")


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """One regular expression for all the patterns. Without a pattern it matches nothing."""
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


def _matches(name: str, pattern: re.Pattern[str]) -> bool:
    """Whether a pattern matches the file or a folder above it, by name or by whole path."""
    while name:
        above, _, last = name.rpartition("/")
        if pattern.match(name) or pattern.match(last):
            return True
        name = above
    return False
