"""The runs in a folder, described by the metadata of their checkpoints.

A checkpoint may come from anywhere: only its header is read, which is bounded, and one that is
broken is left out. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from charlm.checkpoint.format import BEST, LAST, Meta
from charlm.checkpoint.read import find_checkpoint, read_meta, reading
from charlm.config.describe import describe_model
from charlm.errors import CheckpointError
from charlm.files import is_locked

State = Literal["running", "finished", "stopped"]


@dataclass(frozen=True)
class Summary:
    """A run, at its last checkpoint.

    Attributes:
        folder: the run folder.
        name: the name of the folder.
        model: the network, for example `lstm, 1 layer of 256`.
        parameters: the number of trainable parameters.
        text: the source of the text.
        chars: the number of its characters (or bytes).
        step: the optimizer steps so far.
        seconds: of training, without evaluation.
        best_loss: the lowest validation loss in nats per character; None before an evaluation.
        best_step: the step of this loss.
        saved: when the checkpoint was written, in seconds since 1970.
        state: running, if a process trains in the folder; finished, or stopped before its end.
    """

    folder: Path
    name: str
    model: str
    parameters: int
    text: str
    chars: int
    step: int
    seconds: float
    best_loss: float | None
    best_step: int | None
    saved: float
    state: State


def find_runs(folder: Path, notify: Callable[[str], None]) -> list[Summary]:
    """The runs in a folder, or the run that it is; the one that was saved last comes first.

    Args:
        notify: is called with a line for each run that is left out because it cannot be read.

    Raises:
        CheckpointError: there is no such folder.
    """
    with reading(folder):
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder}: no such folder; train a run with charlm train, or name another folder"
            )
        folders = [folder] if _checkpoint_of(folder) else sorted(folder.iterdir())
    runs = []
    for each in folders:
        try:
            with reading(each):
                if path := _checkpoint_of(each):
                    runs.append(summarize(path, read_meta(path)))
        except CheckpointError as error:
            notify(f"left out: {error}")
    return sorted(runs, key=lambda run: -run.saved)


def _checkpoint_of(folder: Path) -> Path | None:
    """The newest checkpoint of a run folder; None if it has none."""
    return next((folder / name for name in (LAST, BEST) if (folder / name).is_file()), None)


def read_run(given: Path, runs: Path) -> tuple[Summary, Meta]:
    """Read the newest checkpoint of a run.

    Args:
        given: a run folder, or a checkpoint file that stands for the run at its step.
        runs: see `find_checkpoint`.

    Raises:
        CheckpointError: there is no such run, or it cannot be read.
    """
    path = find_checkpoint(given, runs)
    if path != given:
        path = _checkpoint_of(path.parent) or path
    with reading(path):
        meta = read_meta(path)
        return summarize(path, meta), meta


def summarize(path: Path, meta: Meta) -> Summary:
    """Describe the run of a checkpoint.

    Raises:
        OSError: the file or its folder was removed.
    """
    progress, folder = meta.progress, path.parent
    state: State = "finished" if progress.finished else "stopped"
    return Summary(
        folder=folder,
        name=folder.resolve().name,
        model=describe_model(meta.config.model),
        parameters=meta.parameters,
        text=meta.corpus.source,
        chars=meta.corpus.chars,
        step=progress.step,
        seconds=progress.elapsed_s,
        best_loss=progress.best_loss,
        best_step=progress.best_step,
        saved=path.stat().st_mtime,
        state="running" if is_locked(folder) else state,
    )
