"""Run folders. A process locks a run folder before it reads anything in it.

last.safetensors           the newest checkpoint, to resume from
best.safetensors           the checkpoint with the lowest validation loss
step-00001000.safetensors  kept checkpoints (train.keep_every)
config.yaml                the settings of the run
metrics.jsonl samples.txt  what was logged
events.out.tfevents.*      the same for TensorBoard, one file for each session
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import Checkpoint, open_checkpoint, reading
from charlm.checkpoint.write import TEMPORARY, write, writing
from charlm.config import Config
from charlm.config.files import load_config, to_yaml
from charlm.errors import CheckpointError, ConfigError
from charlm.files import locked

CONFIG = "config.yaml"
_LEFTOVERS = {CONFIG, TEMPORARY, "last.tmp"}  # of a run that was killed before its first checkpoint


@contextmanager
def new_run(folder: Path) -> Iterator[None]:
    """Create and lock the folder of a new run. If the run does not start, remove it again.

    Raises:
        CheckpointError: the folder cannot be created, another process trains in it, or it has a
            run or other files in it.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with writing(folder, "choose another folder with out=DIR"):
        folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder):
        try:
            with reading(folder):
                _refuse_to_overwrite(folder)
            yield
        finally:
            for each in made:
                with suppress(OSError):
                    each.rmdir()  # fails if it is not empty


@contextmanager
def stopped_run(folder: Path) -> Iterator[Checkpoint]:
    """Lock the folder of a run that has stopped, and open its last checkpoint.

    Raises:
        CheckpointError: there is no checkpoint, it cannot be read, or another process trains in
            the folder.
    """
    with reading(folder):
        if not folder.is_dir():
            raise _nothing_to_resume(folder)
    with _exclusive(folder):
        with reading(folder):
            if not (folder / LAST).is_file():
                raise _nothing_to_resume(folder)
        with open_checkpoint(folder / LAST) as last:
            yield last


def _nothing_to_resume(folder: Path) -> CheckpointError:
    best = shlex.quote(str(folder / BEST))
    advice = "start a new run there"
    if (folder / BEST).is_file():
        advice = f"start another run from its best weights: init_from={best} name=NAME"
    elif folder.is_dir() and {path.name for path in folder.iterdir()} - _LEFTOVERS:
        advice = "the folder has other files in it, so start another run with name=NAME"
    return CheckpointError(f"{folder}: no {LAST} to resume from; {advice}")


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes from using a run folder, where the system supports locks.

    Raises:
        CheckpointError: another process uses it.
    """
    with ExitStack() as stack:
        with reading(folder):
            is_locked = stack.enter_context(locked(folder, wait=False))
        if not is_locked:
            raise CheckpointError(
                f"{folder}: another process is training this run; wait until it ends, or start "
                "another run with name=NAME"
            )
        yield


def _refuse_to_overwrite(folder: Path) -> None:
    """Raise CheckpointError if a folder has files other than those that a run writes before its
    first checkpoint."""
    names = {path.name for path in folder.iterdir()}
    if names - _LEFTOVERS:
        found, resume = "other files are here and are", ""
        if LAST in names:
            found, resume = (
                "this run exists and is",
                f"continue it with resume={shlex.quote(str(folder))}, or ",
            )
        raise CheckpointError(
            f"{folder}: {found} not overwritten; {resume}start another run with name=NAME"
        )
    if CONFIG in names and not _is_generated(folder / CONFIG):
        raise CheckpointError(
            f"{folder / CONFIG}: charlm did not write this file, or it is incomplete, so it is "
            "not overwritten; rename it, or start another run with name=NAME"
        )


def _is_generated(path: Path) -> bool:
    """Return whether charlm wrote this config, and not the user. An empty file loses nothing.

    Raises:
        OSError: it cannot be read.
    """
    content = path.read_bytes() if path.is_file() else b"no file"
    try:
        return not content or content == to_yaml(load_config(path)).encode()
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from error
        return False


# --- config.yaml --------------------------------------------------------------------------------


def edited_config(folder: Path, recorded: Config) -> Config | None:
    """Return the settings in config.yaml if they are not those that the checkpoint recorded.

    Returns:
        None if they are the same, or there is no config.yaml. The name is always that of the
        folder.

    Raises:
        ConfigError: config.yaml cannot be read.
    """
    path = folder / CONFIG
    if not path.is_file() or not path.stat().st_size:
        return None
    try:
        config = load_config(path, name=folder.name)
    except ConfigError as error:
        advice = "or rename this file to resume with the settings of the checkpoint"
        raise ConfigError(*error.lines[:-1], f"{error.lines[-1]}; {advice}") from error
    return None if config == recorded.model_copy(update={"name": config.name}) else config


def write_config(folder: Path, config: Config) -> None:
    """Write config.yaml, if it does not have these settings already.

    A file that the user has edited is renamed to config-1.yaml or the next free number.

    Raises:
        CheckpointError: it cannot be written.
    """
    path = folder / CONFIG
    with writing(folder), suppress(ConfigError, FileNotFoundError):
        if path.stat().st_size and load_config(path) == config:
            return
    with writing(folder):
        if path.exists() and not _is_generated(path):
            names = (folder / f"config-{n}.yaml" for n in count(1))
            path.rename(next(name for name in names if not name.exists()))
    write(path, to_yaml(config).encode())


# --- kept checkpoints ---------------------------------------------------------------------------


def kept_checkpoint(folder: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step, for `train.keep_every`."""
    return folder / f"step-{step:08d}.safetensors"


def remove_kept(folder: Path, step: int, n_kept: int) -> None:
    """Remove the kept checkpoints of the steps up to `step`, except the newest `n_kept`.

    Only files with the names that `kept_checkpoint` gives are removed. Files of later steps stay:
    their run was killed and has been resumed from an earlier step.

    Raises:
        CheckpointError: a file cannot be removed.
    """
    with writing(folder):
        steps = [
            int(match[1])
            for path in folder.iterdir()
            if (match := re.fullmatch(r"step-([0-9]{8,})\.safetensors", path.name))
            and path == kept_checkpoint(folder, int(match[1]))
        ]
        for old in sorted(each for each in steps if each <= step)[:-n_kept]:
            kept_checkpoint(folder, old).unlink()
