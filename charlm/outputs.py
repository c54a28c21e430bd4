"""Writing what the user asked for: a file or a folder that the user named, or a device."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from charlm.errors import CharlmError

_FILE, _FOLDER = "out=FILE for another file", "out=DIR for another folder"  # what to do instead


def check_free(path: Path, what: str, overwrite: bool) -> None:
    """Check that a file can be written to `path`.

    Args:
        what: the file, for messages, such as "report".

    Raises:
        CharlmError: it cannot, or the file exists and `overwrite` is False.
    """
    if path.is_dir():
        raise CharlmError(f"{path}: is a folder; out=FILE needs the name of a file")
    if _is_device(path):
        return
    if path.exists() and not overwrite:
        raise CharlmError(f"{path}: already exists; use force=True to overwrite it, or {_FILE}")
    _check_folder(_end_of_links(path, what).parent, path, what, _FILE)


def check_folder_free(path: Path, what: str, overwrite: bool) -> None:
    """Check that a folder can be written to `path`; see `write_folder`.

    Args:
        what: the folder, for messages, such as "model".

    Raises:
        CharlmError: it cannot, or the folder exists and `overwrite` is False.
    """
    if path.exists() and not path.is_dir():
        raise CharlmError(f"{path}: is not a folder; out=DIR needs the name of a folder")
    if path.exists() and not overwrite:
        raise CharlmError(
            f"{path}: already exists; use force=True to replace the files of the same names in "
            f"it, or {_FOLDER}"
        )
    _check_folder(_place_of(_end_of_links(path, what, _FOLDER)), path, what, _FOLDER)


def _check_folder(folder: Path, path: Path, what: str, instead: str) -> None:
    if not folder.is_dir():
        raise _unwritable(path, what, f"there is no folder {folder}", instead)
    if not os.access(folder, os.W_OK):
        raise _unwritable(path, what, f"no permission to write in {folder}", instead)


def _is_device(path: Path) -> bool:
    """Whether a path is a device or a pipe, such as /dev/stdout: written to, and never replaced."""
    return path.exists() and not path.is_file()


def _end_of_links(path: Path, what: str, instead: str = _FILE) -> Path:
    """The file that a path is, or would be, after all symbolic links."""
    end = Path(os.path.realpath(path))
    if end.is_symlink():
        raise _unwritable(path, what, "this link leads to itself", instead)
    return end if path.is_symlink() else path


def _place_of(end: Path) -> Path:
    """The folder in which the files of the folder `end` are prepared: itself, or that above it."""
    return end if end.is_dir() else end.parent


def write_output(path: Path, content: bytes, what: str, overwrite: bool) -> int:
    """Write a file to `path`.

    A regular file is replaced at once when the new one is complete. A link stays a link.

    Args:
        content: of the file.
        what: the file, for messages, such as "report".

    Returns:
        The number of bytes written.

    Raises:
        CharlmError: the file cannot be written, or it exists and `overwrite` is False.
    """
    try:
        if _is_device(path):
            path.write_bytes(content)
        else:
            _replace(path, content, what, overwrite)
    except OSError as error:
        raise _unwritable(path, what, str(error.strerror)) from error
    return len(content)


def _replace(path: Path, content: bytes, what: str, overwrite: bool) -> None:
    end = _end_of_links(path, what)
    temporary = end.with_name(f".{end.name}.{os.getpid()}.tmp")
    file = temporary.open("xb")  # fails if there is already something with this name
    try:
        with file:
            file.write(content)
        # again: another program may have written the file meanwhile
        check_free(path, what, overwrite)
        temporary.replace(end)
    finally:
        temporary.unlink(missing_ok=True)


def write_folder(path: Path, files: Mapping[str, bytes], what: str, overwrite: bool) -> int:
    """Write a folder of files to `path`.

    A new folder appears at once, when it is complete. In one that exists, each file of the same
    name is replaced when all new ones are complete; other files stay as they are.

    Args:
        files: the contents by name.
        what: the folder, for messages, such as "model".

    Returns:
        The number of bytes written.

    Raises:
        CharlmError: the folder cannot be written, or it exists and `overwrite` is False.
    """
    end = _end_of_links(path, what, _FOLDER)
    temporary = _place_of(end) / f".{end.name}.{os.getpid()}.tmp"
    try:
        temporary.mkdir()  # fails if there is already something with this name
        try:
            for name, content in files.items():
                (temporary / name).write_bytes(content)
            # again: another program may have written the folder meanwhile
            check_folder_free(path, what, overwrite)
            if not end.is_dir():
                temporary.rename(end)  # fails for a folder that is not empty
                return sum(map(len, files.values()))
            if blocked := [name for name in files if (end / name).is_dir()]:
                raise _unwritable(path, what, f"{blocked[0]} is a folder in it", _FOLDER)
            for name in files:
                (temporary / name).replace(end / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise _unwritable(path, what, str(error.strerror), _FOLDER) from error
    return sum(map(len, files.values()))


def _unwritable(path: Path, what: str, why: str, instead: str = _FILE) -> CharlmError:
    return CharlmError(f"{path}: cannot write the {what}: {why}; use {instead}")
