"""Finding and reading a checkpoint. The file may come from anywhere, so its content is checked."""

from __future__ import annotations

import difflib
import mmap
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from charlm.checkpoint.format import BEST, FORMAT, LAST, Meta
from charlm.checkpoint.header import Entry, ForeignError, read_header
from charlm.checkpoint.upgrade import upgraded
from charlm.config.shapes import Named, weight_shapes
from charlm.config.shown import plain, shown
from charlm.errors import CheckpointError, DamageError
from charlm.files import open_at_once

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Weights of more bytes than this are mapped, and not copied. Mapping lets processes share memory
# and start at once, which matters for large files only. Copied weights do not change if the file is
# changed later.
MAP_FROM = 64 << 20
MOST_RUNS = 6  # named in a message
T = TypeVar("T")


def find_checkpoint(given: Path | None, runs: Path = Path("checkpoints")) -> Path:
    """Find a checkpoint file.

    Args:
        given: a checkpoint; or a run folder, or the name of a run under `runs`: its best
            checkpoint, else its last. None for the run under `runs` that was saved last.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    try:
        if given is None:
            given = _newest_run(runs)
        path = by_name(given, runs)
        if path.is_dir():
            for name in (BEST, LAST):
                if (path / name).is_file():
                    return path / name
            raise CheckpointError(f"{path}: no {BEST} and no {LAST} in this folder{_runs_in(path)}")
        if not path.exists():
            raise CheckpointError(f"{path}: no such checkpoint or run{_known_runs(path, runs)}")
    except OSError as error:  # a name that is too long, a folder without permission
        raise CheckpointError(
            f"{given or runs}: cannot open this path: {error.strerror}"
        ) from error
    return path


def find_run(given: Path, runs: Path) -> Path:
    """Find a run folder. It may be without a checkpoint, which `stopped_run` reports.

    Args:
        given: the folder, the name of a run under `runs`, or a checkpoint in the folder.

    Raises:
        CheckpointError: there is no such run.
    """
    try:
        path = by_name(given, runs)
        if not path.exists():
            path = runs / given
        if path.is_dir():
            return path if path.name not in ("", "..") else path.resolve()
        if path.suffix == ".safetensors" and path.is_file():
            return path.parent
        raise CheckpointError(f"{given}: no such run{_known_runs(given, runs)}")
    except OSError as error:
        raise CheckpointError(f"{given}: cannot open this path: {error.strerror}") from error


def by_name(given: Path, runs: Path) -> Path:
    """The folder of the run of this name, if it is none but the name of a run under `runs`."""
    is_name = given.name == str(given) and not _has_checkpoint(given)
    return runs / given if is_name and _has_checkpoint(runs / given) else given


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (BEST, LAST))


def _known_runs(given: Path, runs: Path) -> str:
    """The end of the message about a run that does not exist: one with a similar name, or all.

    For a path, which may be meant to be elsewhere, the others are not listed.
    """
    if close := difflib.get_close_matches(given.name, _names(runs), 1):
        return f"; did you mean {close[0]}?"
    return _runs_in(runs) if given.name == str(given) else ""


def _runs_in(folder: Path) -> str:
    """The end of a message that lists the first runs in a folder; empty if it has none."""
    names = _names(folder)
    some = ", ".join(names[:MOST_RUNS]) + ", ..." * (len(names) > MOST_RUNS)
    return f"; runs in {folder}/: {some}" if names else ""


def _names(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"*/{LAST}"))


def _newest_run(runs: Path) -> Path:
    found = [(path.stat().st_mtime, path) for path in runs.glob(f"*/{LAST}") if path.is_file()]
    if not found:
        raise CheckpointError(
            f"no run under {runs}/; train one with charlm train, or name a checkpoint"
        )
    return max(found)[1].parent


class Checkpoint:
    """A checkpoint file that is open. Made by `open_checkpoint`.

    Everything is read from the file that was opened, also if another process renames a new file
    over its path meanwhile. Its weights have the names and shapes that its config needs.

    Attributes:
        path: where it was opened.
        meta: its metadata.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        with reading(path):
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CheckpointError(
                    f"{path}: not a regular file, so not a checkpoint; copy it into a file first"
                )
            header = read_header(file)
            metadata = upgraded(_known(path, header.metadata))
            self._entries = header.entries()
            self.meta = Meta.model_validate(metadata)
            self._check("model.", weight_shapes(self.meta.config.model, len(self.meta.vocab)))

    def tensors(
        self,
        prefix: str,
        device: torch.device | str = "cpu",
        shapes: Named | None = None,
        dtypes: Collection[str] = ("F32",),
    ) -> dict[str, Tensor]:
        """Read the tensors whose names begin with `prefix`.

        Args:
            device: where to put them.
            shapes: the names, without the prefix, and shapes that they must have; None for any.
                `dtypes` is checked only with `shapes`.
            dtypes: the types that they may have, by their names in safetensors.

        Returns:
            Tensors by their names without the prefix; empty if there are none.

        Raises:
            CheckpointError: there are some, and they are not those of `shapes`; nothing is read
                then. Or the file was cut short since it was opened.
        """
        import torch

        types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
        types |= {"BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}
        found = below(self._entries, prefix)
        tensors = {}
        with reading(self.path):
            if shapes is not None and found:
                self._check(prefix, shapes, dtypes)
            for name, entry in found.items():
                tensor = torch.empty(entry.shape, dtype=types[entry.dtype])
                self._read(entry, tensor.reshape(-1).view(torch.uint8).numpy())
                tensors[name] = tensor.to(device)
        return tensors

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Read the weights without torch, or map them if they have more than MAP_FROM bytes.

        Mapped weights need the file: if another process cuts it short in place, the system ends
        this process by SIGBUS. charlm never does that, as it replaces files by renaming.

        Returns:
            Read-only arrays by the names that the model's parameters have, aligned to 4 bytes.

        Raises:
            CheckpointError: the file was cut short since it was opened.
        """
        found = below(self._entries, "model.")
        with reading(self.path):
            whole: mmap.mmap | None = None
            if sum(entry.end - entry.begin for entry in found.values()) > MAP_FROM:
                whole = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            return {name: self._array(entry, whole) for name, entry in found.items()}

    def close(self) -> None:
        """Close the file, as the end of `open_checkpoint` does."""
        self._file.close()

    def _array(self, entry: Entry, whole: mmap.mmap | None) -> NDArray[np.float32]:
        count = (entry.end - entry.begin) // 4
        if whole is not None and entry.begin % 4 == 0:
            array = np.frombuffer(whole, "<f4", count, entry.begin)
        else:
            array = np.empty(count, "<f4")
            self._read(entry, array)
            array.flags.writeable = False
        return array.reshape(entry.shape)

    def _read(self, entry: Entry, buffer: NDArray[Any]) -> None:
        """Fill a buffer that has the size of a tensor."""
        self._file.seek(entry.begin)
        if self._file.readinto(buffer) != entry.end - entry.begin:  # type: ignore[attr-defined]
            raise DamageError("it was cut short while it was read")

    def _check(self, prefix: str, shapes: Named, dtypes: Collection[str] = ("F32",)) -> None:
        """Raise DamageError unless the tensors below a prefix are exactly those of `shapes`."""
        found = below(self._entries, prefix)
        expected = dict(islice(shapes, len(found) + 1))  # `shapes` may be endless
        for name, shape in expected.items():
            entry = found.get(name)
            if entry is None:
                raise DamageError(f"no tensor {prefix}{name}")
            if entry.shape != shape or entry.dtype not in dtypes:
                raise DamageError(
                    f"{prefix}{name} is {entry.shape} of {entry.dtype}, and not {shape} of "
                    f"{' or '.join(dtypes)}"
                )
        if unknown := found.keys() - expected:
            raise DamageError(f"unexpected tensor {shown(prefix + min(unknown))}")


def below(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    """What has a name that begins with `prefix`, by the rest of its name."""
    return {name.removeprefix(prefix): it for name, it in named.items() if name.startswith(prefix)}


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """Open a checkpoint, and check everything but the numbers in its tensors. Needs no torch.

    Raises:
        CheckpointError: the file cannot be read, is incomplete, is not a checkpoint of charlm, has
            a newer format, or its weights are not those that its config needs.
    """
    with reading(path):
        file = open(path, "rb", opener=open_at_once)  # noqa: SIM115
    with file:
        yield Checkpoint(path, file)


def read_meta(path: Path) -> Meta:
    """Read the metadata of a checkpoint. Raises and checks as `open_checkpoint`."""
    with open_checkpoint(path) as checkpoint:
        return checkpoint.meta


def check_vocabulary(path: Path, meta: Meta, chars: str) -> None:
    """Check that the vocabulary of a checkpoint has the characters of the text it was trained on.

    Raises:
        CheckpointError: it has others.
    """
    with reading(path):
        if chars != meta.vocab:
            raise DamageError("its vocabulary is not that of its text")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of reading and checking a file into a CheckpointError with one line.

    Other errors are bugs of charlm and keep their traceback.

    Raises:
        CheckpointError: the file cannot be read, or its content fails a check.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: this version of charlm cannot read this checkpoint: {_first(error)}"
        ) from error
    except ForeignError as error:
        raise _not_a_checkpoint(path) from error
    except DamageError as error:
        raise CheckpointError(
            f"{path}: this checkpoint is damaged ({error}); use another checkpoint of the run"
        ) from error


def _first(error: ValidationError) -> str:
    """`key: message` of the first problem; both may quote the file."""
    first = error.errors(include_url=False, include_input=False)[0]
    key, message = ".".join(map(str, first["loc"])), first["msg"].split("\n")[0]
    return f"{plain(key)}: {plain(message, 500)}" if key else plain(message, 500)


def _known(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Check that metadata has a format that this version can read."""
    version = metadata.get("format")
    if type(version) is not int or version < 1:
        raise _not_a_checkpoint(path)
    if version > FORMAT:
        raise CheckpointError(
            f"{path}: written by a newer charlm (format {shown(version)}, this one reads "
            f"{FORMAT}); upgrade charlm"
        )
    return metadata


def _not_a_checkpoint(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a charlm checkpoint, or only the beginning of one; "
        "`charlm runs` lists the runs"
    )
