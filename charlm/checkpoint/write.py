"""Writing the files of a run: each is complete on the disk at any moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.checkpoint.format import Meta
from charlm.errors import CheckpointError, name_of_file
from charlm.files import flush, opened_folder, write_file

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY = ".saving.tmp"  # one name for all files, so that a killed run leaves at most one
ADVICE = "make it writable, or start a new run in another folder with out=DIR"


@contextmanager
def writing(path: Path, advice: str = ADVICE) -> Iterator[None]:
    """Turn an error of writing to `path` into a CheckpointError with one line.

    Args:
        advice: what to do if the disk is not full.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        raise CheckpointError(
            f"{name_of_file(error) or path}: cannot write: {error.strerror}; files saved "
            f"before are unchanged; {'free disk space' if full else advice}"
        ) from error


def save(path: Path, meta: Meta, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint; see `write`."""
    from safetensors.torch import save as serialise

    payload = serialise(
        {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()},
        metadata={"charlm": meta.model_dump_json()},
    )
    write(path, payload)


def write(path: Path, content: bytes) -> None:
    """Write a file of a run whole: `path` is the old or the new file at any moment.

    Raises:
        CheckpointError: the disk is full or read-only; the old file is unchanged.
    """
    with writing(path):
        write_file(path, content, path.with_name(TEMPORARY))
    if os.name == "posix":  # flush the renaming as well; the file is complete without it
        with suppress(OSError), opened_folder(path.parent) as descriptor:
            flush(descriptor)
