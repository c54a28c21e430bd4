"""Places for files, and holding them against other processes."""

from __future__ import annotations

import os
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
    """Where charlm keeps what it can make again: $CHARLM_CACHE, or the system's place for it."""
    return Path(os.environ.get("CHARLM_CACHE") or platformdirs.user_cache_dir("charlm"))


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[bool]:
    """Hold a folder against other processes, where the system can; yields whether it is ours.

    A process that ends, however it does, holds nothing any more.
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
        os.close(descriptor)  # and with it the lock
