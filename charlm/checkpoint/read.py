"""Finding and reading a checkpoint. The file may come from anywhere, so its content is checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from charlm.checkpoint.format import BEST, FORMAT, LAST, Meta
from charlm.checkpoint.upgrade import upgraded
from charlm.errors import CheckpointError, DamageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def find_checkpoint(given: Path | None, runs: Path = Path("checkpoints")) -> Path:
    """Find a checkpoint file.

    Args:
        given: a checkpoint, or a run folder: its best checkpoint, else its last. None for the run
            under `runs` that was saved last.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    if given is None:
        found = sorted(runs.glob(f"*/{LAST}"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise CheckpointError(
                f"no run under {runs}/; train one with charlm train, or name a checkpoint"
            )
        given = found[-1].parent
    try:
        if given.is_dir():
            for name in (BEST, LAST):
                if (given / name).is_file():
                    return given / name
            raise CheckpointError(f"{given}: no {BEST} and no {LAST} in this folder")
        if not given.exists():
            raise CheckpointError(f"{given}: no such checkpoint or run folder")
    except OSError as error:  # a name that is too long, a folder without permission
        raise CheckpointError(f"{given}: cannot open this path: {error.strerror}") from error
    return given


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading and checking a file into a CheckpointError with one line.

    Other errors are bugs of charlm and keep their traceback.

    Raises:
        CheckpointError: the file cannot be read, or its content fails a check.
    """
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path}: this version of charlm cannot read this checkpoint: {where}: {first['msg']}"
        ) from error
    except (SafetensorError, DamageError) as error:
        raise CheckpointError(
            f"{path}: this checkpoint is damaged ({error}); use another one of the run"
        ) from error


def read_meta(path: Path) -> Meta:
    """Read the metadata of a checkpoint, and nothing else of the file. Needs no torch.

    Raises:
        CheckpointError: the file cannot be read, is incomplete, is not a checkpoint of charlm, or
            has a newer format.
    """
    with reading(path):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header_size = int.from_bytes(file.read(8), "little")
            if 8 + header_size > size:
                raise _not_a_checkpoint(path)
            header = parse_header(path, file.read(header_size))
        metadata = _charlm_metadata(path, header)
        expected = 8 + header_size + max((tensor.end for tensor in tensors_in(header)), default=0)
        if size != expected:
            raise CheckpointError(
                f"{path}: this checkpoint is damaged: {size:,} bytes of {expected:,}; use another "
                "one of the run"
            )
        return Meta.model_validate(upgraded(metadata))


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a safetensors header; begin and end count bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def tensors_in(header: dict[str, Any]) -> list[TensorEntry]:
    """The tensors that a safetensors header lists.

    Raises:
        DamageError: an entry is not as safetensors writes it.
    """
    entries = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (KeyError, TypeError, ValueError) as error:
            raise DamageError(f"no dtype, shape and data_offsets of {name!r:.100}") from error
        numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
        if not (isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in numbers)):
            raise DamageError(f"no dtype, shape and data_offsets of {name!r:.100}")
        entries.append(TensorEntry(name, dtype, tuple(shape), begin, end))
    return entries


def parse_header(path: Path, content: bytes) -> dict[str, Any]:
    """The header of a safetensors file.

    Raises:
        CheckpointError: it is not a JSON object.
    """
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _not_a_checkpoint(path) from error
    if not isinstance(header, dict):
        raise _not_a_checkpoint(path)
    return header


def _charlm_metadata(path: Path, header: dict[str, Any]) -> dict[str, Any]:
    """charlm's part of a safetensors header, in a format that this version can read."""
    try:
        metadata = json.loads(header["__metadata__"]["charlm"])
        version = metadata["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _not_a_checkpoint(path) from error
    if not isinstance(version, int):
        raise _not_a_checkpoint(path)
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: written by a newer charlm (format {version}, this one reads {FORMAT}); "
            "upgrade charlm"
        )
    return dict(metadata)


def _not_a_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: not a charlm checkpoint, or only the beginning of one")


def read_tensors(path: Path, prefix: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read the tensors whose names begin with `prefix`; the keys are the names without it."""
    from safetensors import safe_open

    with reading(path), safe_open(path, framework="pt", device=str(device)) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


class Checkpoint:
    """A checkpoint that is being read."""

    def __init__(self, path: Path) -> None:
        self.path, self.meta = path, read_meta(path)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        return read_tensors(self.path, prefix)

    def close(self) -> None:
        pass


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """Open a checkpoint."""
    yield Checkpoint(path)
