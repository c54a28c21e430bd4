"""The cache folder, files that other users cannot change, locks on folders, and safe writing.

The cache must be private: only this user and root may change what is in it. A group may write to
it, since the owner chooses the group, and on many systems every user has a group of their own. The
folders above the cache are not checked.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

REMEDY = "make it a folder that only you can write to, or set CHARLM_CACHE to another folder"
_TEMPORARY = re.compile("tmp-[0-9a-f]{16}")  # the folders to build in
_OLD_S = 7 * 86_400.0  # far more than an encoding takes
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class ExposedError(PermissionError):
    """Other users can change a file or a folder; strerror says why."""


def cache_folder() -> Path:
    """Where charlm keeps files that it can create again: $CHARLM_CACHE, or the system's cache.

    A user without a home folder, as in some containers, has a folder of their own in the system's
    folder for temporary files.
    """
    if given := os.environ.get("CHARLM_CACHE"):
        return Path(given)
    import platformdirs  # setup.py imports this module without it

    try:
        return Path(platformdirs.user_cache_dir("charlm"))
    except RuntimeError:  # there is no HOME, and the system does not know the user
        return Path(tempfile.gettempdir()) / f"charlm-{os.getuid()}"


def open_at_once(path: str, flags: int) -> int:
    """An opener for `open` that does not wait until another process opens the end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def opened_folder(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a folder; yields its descriptor. Anything else is an OSError at once, also a pipe that
    nobody writes to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# --- private files and folders ------------------------------------------------------------------


def check_private(path: Path, status: os.stat_result) -> None:
    """Check the status of a file or a folder of the cache.

    Raises:
        ExposedError: it is a symbolic link, or not only this user and root can change it. Windows
            has no such owners and modes, so only links are found there.
    """
    problem = None
    if stat.S_ISLNK(status.st_mode):
        problem = "it is a symbolic link"
    elif os.name == "posix" and status.st_uid not in (0, os.geteuid()):
        problem = "it belongs to another user"
    elif os.name == "posix" and status.st_mode & stat.S_IWOTH:
        problem = "every user can write to it"
    if problem:
        raise ExposedError(errno.EPERM, problem, str(path))


def private_folder(name: str, create: bool = False) -> Path:
    """The path of the folder `name` in the cache. The cache itself may be a link, the folder not.

    Args:
        name: the name of the folder.
        create: whether to create it if it is missing.

    Raises:
        ExposedError: it or the cache is not private.
        OSError: it cannot be created.
    """
    folder = cache_folder() / name
    for path in (folder.parent, folder):
        if create and not path.exists():
            path.mkdir(0o755, parents=True, exist_ok=True)
        with suppress(FileNotFoundError, NotADirectoryError):
            check_private(path, path.lstat() if path == folder else path.stat())
    return folder


def open_private(path: Path) -> BinaryIO:
    """Open a file for reading that only this user and root can change.

    Raises:
        ExposedError: others can change it, or it is a symbolic link or no regular file.
        OSError: it cannot be opened.
    """

    def open_no_link(name: str, flags: int) -> int:
        return open_at_once(name, flags | getattr(os, "O_NOFOLLOW", 0))

    _check_file(path, path.lstat())
    file = open(path, "rb", opener=open_no_link)  # noqa: SIM115
    try:
        _check_file(path, os.fstat(file.fileno()))  # another file may have taken its place
    except BaseException:
        file.close()
        raise
    return file


def _check_file(path: Path, status: os.stat_result) -> None:
    check_private(path, status)
    if not stat.S_ISREG(status.st_mode):
        raise ExposedError(errno.EPERM, "it is not a regular file", str(path))


def remove_folder(folder: Path, names: re.Pattern[str]) -> None:
    """Remove the files of a folder that have such names, and the folder if it is then empty.

    Links are never followed: a link is removed, and what it points to stays.

    Raises:
        OSError: something cannot be removed, or other files remain.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    if os.unlink in os.supports_dir_fd:
        with opened_folder(folder, os.O_NOFOLLOW) as descriptor:
            for name in filter(names.fullmatch, os.listdir(descriptor)):  # noqa: PTH208
                os.unlink(name, dir_fd=descriptor)
    else:  # Windows
        for path in folder.iterdir():
            if names.fullmatch(path.name):
                path.unlink()
    folder.rmdir()


def discard_folder(folder: Path, names: re.Pattern[str]) -> None:
    """Remove a folder as `remove_folder` does. What cannot be removed stays."""
    with suppress(OSError):
        remove_folder(folder, names)


# --- locks --------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path, wait: bool, without: bool = True) -> Iterator[bool]:
    """Lock a folder against other processes, if the system and the file system support it.

    The system releases the lock when the process ends, also when it is killed.

    Args:
        folder: the folder to lock.
        wait: wait until the lock is free.
        without: what to yield without support for locks.

    Yields:
        Whether this process has the lock.
    """
    if fcntl is None:
        yield without
        return
    with opened_folder(folder) as descriptor:  # closing it also releases the lock
        yield _lock_exclusively(descriptor, wait, without)


def _lock_exclusively(descriptor: int, wait: bool, without: bool) -> bool:
    if wait:
        return _lock(descriptor, fcntl.LOCK_EX, without)
    for pause_s in (0, 0.05, 0.1):  # `is_locked` of another process has a lock for a moment
        time.sleep(pause_s)
        if _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, without):
            return True
    return False


def is_locked(folder: Path) -> bool:
    """Whether a process has locked a folder; False if that cannot be told.

    For a moment this takes a shared lock, for which `locked` waits.

    Raises:
        OSError: the folder cannot be opened.
    """
    if fcntl is None:
        return False
    with opened_folder(folder) as descriptor:
        return not _lock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, without=True)


def _lock(descriptor: int, how: int, without: bool) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems
        if error.errno not in {*_UNSUPPORTED, errno.ENOLCK}:
            raise
        return without
    return True


# --- folders to build in ------------------------------------------------------------------------


@contextmanager
def build_folder(root: Path, names: re.Pattern[str]) -> Iterator[Path]:
    """A new folder in `root` to build in. It is locked, and removed at the end.

    Args:
        root: a folder of the cache.
        names: of the files that may be removed.
    """
    with ExitStack() as stack:
        with locked(root, wait=True):  # so that `remove_abandoned` does not see it unlocked
            folder = root / f"{build_prefix()}{secrets.token_hex(4)}"
            stack.callback(discard_folder, folder, names)
            folder.mkdir(0o755)  # other users may read it if they may read the cache
            stack.enter_context(locked(folder, wait=False))
        yield folder


def remove_abandoned(root: Path, names: re.Pattern[str]) -> None:
    """Remove the build folders in `root` of processes that were killed.

    A process holds a lock on its folder, so an unlocked folder is abandoned. Without support for
    locks this is not known, and nothing is removed. On a network file system the locks of another
    machine may not be seen, so its folders are removed only if they are old.

    Args:
        root: a folder of the cache; it may be missing.
        names: of the files that may be removed.
    """
    with suppress(OSError):
        if not (found := [path for path in root.iterdir() if _may_be_abandoned(path)]):
            return
        with locked(root, wait=False) as is_alone:
            for folder in found if is_alone else ():
                with suppress(OSError), locked(folder, wait=False, without=False) as abandoned:
                    if abandoned:
                        remove_folder(folder, names)


def build_prefix() -> str:
    """What the names of the folders to build in begin with on this machine."""
    return f"tmp-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}"


def _may_be_abandoned(path: Path) -> bool:
    if not _TEMPORARY.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
        return False
    is_own = path.name.startswith(build_prefix())
    return is_own or time.time() - path.lstat().st_mtime > _OLD_S


# --- writing ------------------------------------------------------------------------------------


def write_file(path: Path, content: bytes, temporary: Path, mode: int = 0o666) -> None:
    """Write a file. At any moment, `path` is the complete old file or the complete new one.

    Args:
        temporary: a path on the same file system, at which nobody else writes. What is there is
            removed.
        mode: the permissions, without those that the umask takes away.
    """

    def create(name: str, flags: int) -> int:
        return os.open(name, flags, mode)

    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb", opener=create) as file:  # "x" follows no link of this name
            file.write(content)
            file.flush()
            flush(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush(descriptor: int) -> None:
    """Flush an open file or folder to the disk, if its file system supports it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {*_UNSUPPORTED, errno.EINVAL}:
            raise
