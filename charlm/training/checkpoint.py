"""A checkpoint: one .safetensors file that needs nothing else.

Tensors, by the beginning of their names:
    model.      the weights
    optimizer.  what the optimizers remember
    state.      what the model remembers of the text, one group for each piece of a batch
    rng.        the generators behind dropout, `rng.cpu` and `rng.cuda`
Metadata, under the key `charlm`: a JSON object, see `Meta`.

The file layout (an 8-byte little-endian length, a JSON header, the tensors' bytes) is that of
github.com/huggingface/safetensors. It holds no code, so a stranger's file is safe to open.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from charlm.config import Config
from charlm.data.vocab import UNKNOWN, Vocab
from charlm.errors import CheckpointError
from charlm.files import locked

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1  # the version of this layout; a reader refuses a newer one
LAST, BEST = "last.safetensors", "best.safetensors"


class Progress(BaseModel):
    """How far a run has come: all that changes and is not a tensor."""

    step: int = 0
    elapsed_s: float = 0.0  # training only, evaluation and saving not counted
    skipped_steps: int = 0
    bad_in_a_row: int = 0
    best_loss: float | None = None  # nats per character on the validation split
    best_step: int | None = None
    evals_since_best: int = 0
    evaluated_at: int | None = None  # the last step at which each of these was done
    sampled_at: int | None = None
    finished: bool = False
    logged_at: int = 0  # the step at which the training loss was last recorded
    logged_elapsed_s: float = 0.0
    loss_sum: float = 0.0  # of the steps since
    loss_count: int = 0
    scaler: dict[str, int | float] = {}  # of fp16's gradient scaling


class CorpusInfo(BaseModel):
    """The text a run was trained on."""

    model_config = ConfigDict(frozen=True)

    source: str
    chars: int
    sha256: str  # as Corpus has it


class Meta(BaseModel):
    """All that a checkpoint says besides its tensors."""

    model_config = ConfigDict(frozen=True)

    format: int
    config: Config
    vocab: str  # every character, in the order of ids
    corpus: CorpusInfo
    parameters: int
    progress: Progress
    log_sizes: dict[str, int]  # bytes written to the run's logs so far
    device: str
    precision: Literal["fp32", "bf16", "fp16"]
    threads: int
    kernel: str = "torch"  # see Compute
    muon: Literal["fp32", "bf16"] = "bf16"  # see Compute; before there was a choice, it was bf16
    versions: dict[str, str]

    @field_validator("vocab")
    @classmethod
    def _check_vocab(cls, vocab: str) -> str:
        if not vocab or len(set(vocab)) < len(vocab):
            raise ValueError("it is empty, or a character stands twice")
        return vocab

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        data = self.config.data
        whole = self.vocab == Vocab.of_bytes().chars
        if (data.unit == "byte" and not whole) or (data.is_limited and UNKNOWN not in self.vocab):
            raise ValueError("the vocabulary is not of the kind that the config has")
        return self

    @property
    def vocabulary(self) -> Vocab:
        """The characters the model knows."""
        data = self.config.data
        return Vocab(self.vocab, limited=data.is_limited, unit=data.unit)


# --- writing ---------------------------------------------------------------------------------


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what the disk did not let us do at `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        raise CheckpointError(
            f"{error.filename or path}: cannot write: {error.strerror}; what was saved before is "
            f"as it was; {'make room' if full else 'choose another place with --out'}"
        ) from error


def save(path: Path, meta: Meta, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint so that at any moment `path` is the old file, whole, or the new one.

    Raises:
        CheckpointError: the disk is full or read-only; the old file is as it was.
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
    """Keep other processes from training in a run folder, where the system can.

    Raises:
        CheckpointError: another one is at it.
    """
    with locked(folder, wait=False) as ours:
        if not ours:
            raise CheckpointError(f"{folder}: another process is training this run")
        yield


def _flush_folder(folder: Path) -> None:
    """Put a rename on the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- reading ---------------------------------------------------------------------------------


def find_checkpoint(given: Path | None, runs: Path = Path("checkpoints")) -> Path:
    """The file meant by `given`: itself, or of a run folder its best, else its last.

    None is the newest run under `runs`.

    Raises:
        CheckpointError: there is none.
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
    except OSError as error:  # a name too long, a folder not to be entered
        raise CheckpointError(f"{given}: cannot look there: {error.strerror}") from error
    return given


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in one line that a file is not what it should be; a checkpoint may come from anywhere."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path}: this charlm cannot read this checkpoint: {where}: {first['msg']}"
        ) from error
    except (SafetensorError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: this checkpoint is damaged ({type(error).__name__}: {error}); take another "
            "of the run"
        ) from error


def read_meta(path: Path) -> Meta:
    """What a checkpoint says besides its tensors. Needs no torch, and reads only the header.

    Raises:
        CheckpointError: it cannot be read, is cut short, is not charlm's, or is of a newer format.
    """
    with reading(path):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header_size = int.from_bytes(file.read(8), "little")
            if 8 + header_size > size:
                raise _not_a_checkpoint(path)
            header_bytes = file.read(header_size)
        own, ends = _parse(path, header_bytes)
        wanted = 8 + header_size + max(ends, default=0)
        if size != wanted:
            raise CheckpointError(
                f"{path}: this checkpoint is damaged: {size:,} bytes of {wanted:,}; take another "
                "of the run"
            )
        return Meta.model_validate(own)


def _parse(path: Path, header_bytes: bytes) -> tuple[dict[str, Any], list[int]]:
    """charlm's part of a safetensors header, and where each tensor ends after it."""
    try:
        header = json.loads(header_bytes)
    except ValueError as error:
        raise _not_a_checkpoint(path) from error
    own = _own_metadata(path, header)
    return own, [e["data_offsets"][1] for name, e in header.items() if name != "__metadata__"]


def _own_metadata(path: Path, header: Any) -> dict[str, Any]:
    """charlm's part of a safetensors header, of a format this version knows."""
    try:
        own = json.loads(header["__metadata__"]["charlm"])
        version = int(own["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise _not_a_checkpoint(path) from error
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: written by a newer charlm (format {version}, this one reads {FORMAT}); "
            "upgrade charlm"
        )
    return dict(own)


def _not_a_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: not a charlm checkpoint, or only the beginning of one")


def read_tensors(path: Path, prefix: str, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of the name; only they are read."""
    from safetensors import safe_open

    with reading(path), safe_open(path, framework="pt", device=str(device)) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
