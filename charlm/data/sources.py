"""Where the bytes of a text come from: files, folders, globs, standard input, known names."""

from __future__ import annotations

import bz2
import difflib
import errno
import glob
import gzip
import io
import lzma
import os
import shlex
import stat
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from charlm.config import DataConfig
from charlm.data import library
from charlm.data.builtin import PREFIX, read_builtin
from charlm.data.search import Found, search_folder, search_glob
from charlm.errors import DataError
from charlm.files import open_at_once

CHUNK = 1 << 20  # bytes read at a time
MAX_NAMES = 1000  # of a folder, that are compared with one that does not exist
_UNPACKERS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
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
        notices: Lines for the user about what was left out of a folder or glob.
        unpack: Wraps the open source in a file that decompresses it.
    """

    name: str
    open: Callable[[], IO[bytes]]
    path: Path | None = None
    encoding: str | None = None
    found: bool = False
    once: bool = False
    notices: Sequence[str] = ()
    unpack: Callable[[IO[bytes]], Any] = nullcontext

    def chunks(self) -> Iterator[bytes]:
        """The bytes, `CHUNK` at a time.

        Raises:
            DataError: The source cannot be read. The message says what to do.
        """
        with _reported(self.name, self.found), self.open() as raw, self.unpack(raw) as file:
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


def find_sources(
    path: Sequence[str], data: DataConfig, named: Collection[str] | None = None
) -> list[Source]:
    """The sources that `path` names, in this order. Files of a folder or glob are sorted by path.

    Args:
        path: Files, folders, globs and other names, as in `data.path`.
        data: The settings `include` and `exclude`.
        named: The names that the user gave. The other names come from a checkpoint, which anybody
            may have made: of these, only regular files are opened. None if the user gave all.

    Raises:
        DataError: A path does not exist, or a folder or glob has no matching file.
    """
    return [
        source
        for entry in path
        for source in _find(entry, data, trusted=named is None or entry in named)
    ]


def _find(entry: str, data: DataConfig, trusted: bool) -> list[Source]:
    if entry == "-":
        name = "standard input"
        return [Source(name, _open_stdin, once=True) if trusted else _refused(name, entry)]
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
            return _found(path, search_folder(path, data), trusted)
        if not os.path.lexists(path):
            if entry in library.KNOWN:
                return [_file(library.find(entry), trusted)]
            if glob.has_magic(entry):
                return _found(path, search_glob(path, data), trusted)
    source = _file(path, trusted)
    return [source if source.path or trusted else _refused(str(path), entry)]


def _open_stdin() -> IO[bytes]:
    if os.isatty(0):
        raise DataError("data.path is -, but nothing is piped to standard input; try: cat TEXT |")
    os.set_blocking(0, True)  # otherwise a pause looks like the end of the input
    return io.FileIO(os.dup(0))


def _builtin(entry: str) -> Source:
    return Source(entry, lambda: io.BytesIO(read_builtin(entry).encode()), encoding="utf-8")


def _refused(name: str, entry: str) -> Source:
    """A source that is not opened. Its text may still be in the cache."""

    def refuse() -> IO[bytes]:
        raise DataError(
            f"{name}: not a regular file, and only the checkpoint names it, so it is not opened; "
            "if it is the text, give it to eval or to a resumed run with "
            f"data={shlex.quote(entry)}"
        )

    return Source(name, refuse, once=True)


def _hint_to_similar(path: Path) -> str:
    """What may have been meant by the path of a file that does not exist."""
    if text := library.similar(str(path)):
        return f"; did you mean the well-known text {text}?"
    with suppress(OSError):
        names = [each.name for each in islice(path.parent.iterdir(), MAX_NAMES)]
        if close := difflib.get_close_matches(path.name, names, 1, cutoff=0.8):
            return f"; did you mean {shlex.quote(str(path.with_name(close[0])))}?"
    return ""


def _file(path: Path, trusted: bool, found: bool = False) -> Source:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        hint = "; leave it out with data.exclude" if found else _hint_to_similar(path)
        raise DataError(f"{path}: cannot read this text: {error.strerror}{hint}") from error
    regular = stat.S_ISREG(mode)
    return Source(
        name=str(path),
        open=lambda: _open(path, trusted, found),
        unpack=_UNPACKERS.get(path.suffix.lower(), nullcontext),
        path=path if regular else None,  # the stamp of a pipe does not show a change
        found=found,
        once=not regular,
    )


def _open(path: Path, trusted: bool, found: bool) -> IO[bytes]:
    file = io.FileIO(path, opener=_open_regular if found or not trusted else None)
    if trusted or os.fstat(file.fileno()).st_size:
        return file
    file.close()  # files of /proc have the size 0, and some of them never end
    return io.BytesIO()


def _open_regular(path: str, flags: int) -> int:
    """An opener for a file that must be regular."""
    descriptor = open_at_once(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def _found(entry: Path, found: Found, trusted: bool) -> list[Source]:
    """The sources of regular files. Pipes, sockets and devices are left out."""
    files = [_file(path, trusted, found=True) for path in found.files]
    sources = [source for source in files if source.path]
    n_others = len(files) - len(sources)
    others = f"pipes, sockets and devices are left out ({n_others:,})" if n_others else ""
    if not sources:
        raise DataError(f"{entry}: no regular file is here: {others}; name one to read it")
    notices = [f"{entry}: {notice}" for notice in (found.skipped, others) if notice]
    return [replace(sources[0], notices=notices), *sources[1:]]


def describe_sources(sources: Sequence[Source]) -> str:
    """`a.txt`, or `a.txt and 12 more`."""
    more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
    return sources[0].name + more


def stamp_of(file: Path | int) -> list[int]:
    """Numbers that differ for another file and after a change.

    Args:
        file: the path of a file, or the descriptor of an open one.

    Returns:
        Device, inode, size in bytes, and the times of modification and of change in nanoseconds.
    """
    it = os.stat(file)  # noqa: PTH116  (Path.stat takes no descriptor)
    return [it.st_dev, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns]
