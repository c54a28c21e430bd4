"""Where a text's bytes come from: files, folders, globs, standard input, names."""

from __future__ import annotations

import bz2
import difflib
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
    """Bytes to read, with the name that messages use.

    `path` is of a file, which changes its stamp when its bytes change; other sources have none.
    `encoding` is that of a source which has its own. `found` says whether it was found in a folder
    or by a glob, not named; `once`, that it is a pipe and cannot be read a second time.
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
            DataError: they cannot be read; the message says what to do.
        """
        with _told(self.name, self.found), self.open() as file:
            while chunk := file.read(CHUNK):
                yield chunk


@contextmanager
def _told(name: str, found: bool) -> Iterator[None]:
    """Say in one line what is wrong with a file."""
    hint = "; bring it in order, or leave it out with data.exclude" if found else ""
    try:
        yield
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{name}: this compressed file is damaged: {error}{hint}") from error
    except EOFError as error:
        raise DataError(f"{name}: this compressed file is cut short{hint}") from error
    except OSError as error:
        reason = error.strerror or str(error)  # bz2 raises it bare
        raise DataError(f"{name}: cannot read this text: {reason}{hint}") from error


def find_sources(path: Sequence[str], data: DataConfig) -> list[Source]:
    """What `path` names, in order; folders and globs by the sorted paths of their files.

    Raises:
        DataError: something is not there, or a folder or glob has no file that is wanted.
    """
    return [source for entry in path for source in _find(entry, data)]


def _find(entry: str, data: DataConfig) -> list[Source]:
    if entry == "-":
        return [Source("standard input", _open_stdin, once=True)]
    if entry.startswith(PREFIX):
        return [_builtin(entry)]
    if "\0" in entry:
        raise DataError(f"{entry!r}: there is no NUL in a path")
    try:
        path = Path(entry).expanduser()
    except RuntimeError as error:
        raise DataError(f"{entry}: there is no such user") from error
    with _told(str(path), found=False):
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
        raise DataError("data.path is -, and nothing is piped to standard input; try: cat TEXT |")
    os.set_blocking(0, True)  # else what comes late would be taken for the end
    return io.FileIO(os.dup(0))


def _builtin(entry: str) -> Source:
    return Source(entry, lambda: io.BytesIO(read_builtin(entry).encode()), encoding="utf-8")


def _file(path: Path, found: bool) -> Source:
    try:
        it = path.stat()
    except OSError as error:
        close = difflib.get_close_matches(path.name, library.KNOWN, 1)
        hint = f"; did you mean the corpus {close[0]}?" if close and not found else ""
        hint = hint or "; leave it out with data.exclude" * found
        raise DataError(f"{path}: cannot read this text: {error.strerror}{hint}") from error
    opener = _OPENERS.get(path.suffix.lower(), io.FileIO)
    regular = stat.S_ISREG(it.st_mode)  # a pipe has no stamp that tells
    own = path if regular else None
    return Source(str(path), lambda: opener(path), own, found=found, once=not regular)


def describe_sources(sources: Sequence[Source]) -> str:
    """`a.txt`, or `a.txt and 12 more`."""
    more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
    return sources[0].name + more


def stamp_of(path: Path) -> list[int]:
    """What tells a file, and whether it changed; its last two are the times of that, in ns."""
    it = path.stat()
    return [it.st_dev, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns]


def _walk(root: Path, data: DataConfig) -> list[Source]:
    """The files of a folder that are wanted; hidden ones are not."""

    def fail(error: OSError) -> None:
        raise error

    names = []
    for folder, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(folder).relative_to(root).parts
        names += ["/".join((*below, name)) for name in files if not name.startswith(".")]
    included, excluded = _any_of(data.include), _any_of(data.exclude)
    wanted = [
        name
        for name in names
        if (not data.include or _matches(name, included)) and not _matches(name, excluded)
    ]
    if not wanted:
        among = f" among its {len(names):,} files that are not hidden" if names else ""
        patterns = " that data.include and data.exclude leave" * bool(data.include or data.exclude)
        raise DataError(f"{root}: this folder has no text{patterns}{among}")
    return _regular(root / name for name in sorted(wanted, key=_in_order))


def _glob(entry: str, pattern: str, data: DataConfig) -> list[Source]:
    names = [name for name in glob.glob(pattern, recursive=True) if Path(name).is_file()]  # noqa: PTH207
    excluded, fixed = _any_of(data.exclude), glob.escape(pattern).find("[")
    above = pattern[:fixed].rpartition("/")[0]  # folders that the pattern names are not excluded
    wanted = [
        name
        for name in names
        if not excluded.match(name) and not _matches(name[len(above) :].lstrip("/"), excluded)
    ]
    if not wanted:
        but = " that data.exclude leaves" * bool(names)
        raise DataError(f"{entry}: no file matches this pattern{but}")
    return _regular(Path(name) for name in sorted(set(wanted), key=_in_order))


def _regular(paths: Iterable[Path]) -> list[Source]:
    """The files; a pipe or a socket that lies among them is passed over."""
    return [source for path in paths if (source := _file(path, found=True)).path]


def _in_order(name: str) -> list[str]:
    """Folder by folder."""
    return name.split("/")


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")


def _matches(name: str, pattern: re.Pattern[str]) -> bool:
    """Whether a pattern is of the file or a folder above it, by its name or its whole path."""
    while name:
        above, _, last = name.rpartition("/")
        if pattern.match(name) or pattern.match(last):
            return True
        name = above
    return False
