"""Writing a checkpoint: the file on the disk is always complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.checkpoint.format import Meta
from charlm.errors import CheckpointError, name_of_file
from charlm.files import locked

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of writing to `path` into a CheckpointError with one line."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        elsewhere = "make it writable, or start a new run in another folder with out=DIR"
        raise CheckpointError(
            f"{name_of_file(error) or path}: cannot write: {error.strerror}; files saved before "
            f"are unchanged; {'free disk space' if full else elsewhere}"
        ) from error


def save(path: Path, meta: Meta, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint. At any moment, `path` is the complete old file or the complete new one.

    Raises:
        CheckpointError: the disk is full or read-only; the old file is unchanged.
    """
    from safetensors.torch import save as serialise

    payload = serialise(
        {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
        metadata={"charlm": meta.model_dump_json()},
    )
    temporary = path.with_suffix(".tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush_folder(path.parent)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a run folder, where the system supports locks.

    Raises:
        CheckpointError: another process is training in it.
    """
    with locked(folder, wait=False) as is_locked:
        if not is_locked:
            raise CheckpointError(f"{folder}: another process is training this run")
        yield


def _flush_folder(folder: Path) -> None:
    """Flush a rename to the disk, where the system supports it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
