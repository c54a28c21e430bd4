"""Writing a page to a file that the user named, or to a device."""

from __future__ import annotations

import os
from pathlib import Path

from charlm.errors import CharlmError


def check_free(path: Path, what: str, overwrite: bool) -> None:
    """Check that a page can be written to `path`.

    Args:
        what: the page, for messages, such as "report".

    Raises:
        CharlmError: it cannot, or the file exists and `overwrite` is False.
    """
    if path.is_dir():
        raise CharlmError(f"{path}: is a folder; out=FILE needs the name of a file")
    if _is_device(path):
        return
    if path.exists() and not overwrite:
        raise CharlmError(
            f"{path}: already exists; use force=True to overwrite it, or out=FILE for another file"
        )
    folder = _end_of_links(path, what).parent
    if not folder.is_dir():
        raise _unwritable(path, what, f"there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise _unwritable(path, what, f"no permission to write in {folder}")


def _is_device(path: Path) -> bool:
    """Whether a path is a device or a pipe, such as /dev/stdout: written to, and never replaced."""
    return path.exists() and not path.is_file()


def _end_of_links(path: Path, what: str) -> Path:
    """The file that a path is, or would be, after all symbolic links."""
    end = Path(os.path.realpath(path))
    if end.is_symlink():
        raise _unwritable(path, what, "this link leads to itself")
    return end if path.is_symlink() else path


def write_page(path: Path, page: str, what: str, overwrite: bool) -> int:
    """Write a page to `path`.

    A regular file is replaced at once when the page is complete. A link stays a link.

    Args:
        page: the HTML.
        what: the page, for messages, such as "report".

    Returns:
        The number of bytes written.

    Raises:
        CharlmError: the file cannot be written, or it exists and `overwrite` is False.
    """
    content = page.encode("utf-8")
    try:
        if _is_device(path):
            path.write_bytes(content)
        else:
            _replace(path, content, what, overwrite)
    except OSError as error:
        raise _unwritable(path, what, str(error.strerror)) from error
    return len(content)


def _replace(path: Path, page: bytes, what: str, overwrite: bool) -> None:
    end = _end_of_links(path, what)
    temporary = end.with_name(f".{end.name}.{os.getpid()}.tmp")
    file = temporary.open("xb")  # fails if there is already something with this name
    try:
        with file:
            file.write(page)
        # again: another program may have written the file meanwhile
        check_free(path, what, overwrite)
        temporary.replace(end)
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, what: str, why: str) -> CharlmError:
    return CharlmError(f"{path}: cannot write the {what}: {why}; use out=FILE for another file")
