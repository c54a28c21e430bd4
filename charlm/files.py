"""The cache folder, and locks on folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CAN_LOCK = fcntl is not None


def cache_folder() -> Path:
    """Where charlm keeps files that it can create again: $CHARLM_CACHE, or the system's cache.

    A user without a home folder, as in some containers, has a folder of their own in the system's
    folder for temporary files.
    """
    if given := os.environ.get("CHARLM_CACHE"):
        return Path(given)
    try:
        return Path(platformdirs.user_cache_dir("charlm"))
    except RuntimeError:  # there is no HOME, and the system does not know the user
        return Path(tempfile.gettempdir()) / f"charlm-{os.getuid()}"


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[bool]:
    """Lock a folder against other processes, if the system supports it.

    The system releases the lock when the process ends, also when it is killed.

    Args:
        wait: wait until the lock is free.

    Yields:
        Whether this process has the lock. Always true on a system without locks.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)  # this also releases the lock
