"""Starts a run with new weights or those of a checkpoint, and resumes a run that stopped."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import Checkpoint, check_vocabulary, find_checkpoint, open_checkpoint
from charlm.checkpoint.weights import copy_weights, read_model
from charlm.config import Config, CosineSchedule, TrainConfig, WSDSchedule
from charlm.config.base import changeable
from charlm.config.compare import varying
from charlm.config.shown import shown
from charlm.config.train import LIMITS
from charlm.data.amounts import fit_batch
from charlm.data.corpus import Corpus, Texts, open_corpus
from charlm.data.vocab import describe
from charlm.devices import CPU, choose_device
from charlm.errors import ConfigError, DataError, DeviceError
from charlm.machine import instruction_set, usable_cpus
from charlm.models import CharModel, build_model
from charlm.observer import Observer
from charlm.training.choose import choose_compute
from charlm.training.compute import Choices
from charlm.training.memory import refuse_too_large
from charlm.training.run import Run
from charlm.training.trainer import Sampler, Trainer
from charlm.version import __version__


@dataclass(frozen=True)
class Session:
    """A run that is ready to be trained, and the lines that a user should read first."""

    run: Run
    model: CharModel
    notices: list[str]

    def trainer(
        self,
        observers: list[Observer],
        should_stop: Callable[[], bool],
        sampler: Sampler | None = None,
        clock: Callable[[], float] = time.monotonic,
        started: float | None = None,
    ) -> Trainer:
        """Return the trainer of this run; see `Trainer` for the arguments."""
        return Trainer(self.run, self.model, observers, should_stop, sampler, clock, started)


def start(
    config: Config,
    folder: Path,
    device: str,
    init_from: Path | None = None,
    opened: Texts | None = None,
) -> Session:
    """Start a new run.

    Args:
        folder: the run folder, locked by `new_run`.
        init_from: a checkpoint or run folder whose weights to start with; None for new weights.
        opened: the config's texts, if they are open already.

    Raises:
        CheckpointError: init_from cannot be read.
        ConfigError: the model in init_from has another architecture.
        DataError, DeviceError: the text or the device is not available.
    """
    if device in ("auto", "cpu") and choose_device(device) == CPU:
        refuse_too_large(config.train, config.model)
    notices: list[str] = []
    if init_from is None:
        corpus = open_corpus(config.data, opened=opened)
        model = build_model(config.model, len(corpus.vocab), config.train.seed)
    else:
        corpus, model, notices = _initialise_from(find_checkpoint(init_from), config, opened)
    config, fit_notices = _fit_batch(config, corpus)
    notices = corpus.notices + notices + fit_notices
    run = Run(folder, config, corpus, choose_compute(config.train, model, device), versions())
    notices += [
        *run.compute.notices,
        *_warmup_notices(run),
        *_clock_notices(config),
        *_validation_notices(corpus),
    ]
    return Session(run, model, notices)


def _fit_batch(config: Config, corpus: Corpus) -> tuple[Config, list[str]]:
    """Return the config with a batch no larger than the text, and a line if that changed it.

    Raises:
        DataError: there is nothing to learn from the text.
    """
    if corpus.n_distinct > 1 == len(corpus.vocab):
        raise DataError(
            f"{corpus.source}: data.vocab_min_count {config.data.vocab_min_count} leaves no "
            "character of this text in the vocabulary; lower it"
        )
    if corpus.n_distinct < 2:
        raise DataError(
            f"{corpus.source}: all characters of this text are the same, so there is nothing to "
            "learn; choose another text"
        )
    train, notices = fit_batch(corpus.split("train"), config.train)
    return config.model_copy(update={"train": train}), notices


def _warmup_notices(run: Run) -> list[str]:
    given, taken = run.config.train.schedule.warmup_steps, run.schedule.warmup_steps
    if given == taken:
        return []
    return [
        f"train.schedule.warmup_steps: {given} is not below the {run.limits.steps} steps of the "
        f"run, so the warm-up is shortened to {taken}"
    ]


def resume(
    config: Config,
    last: Checkpoint,
    device: str,
    named: Collection[str] | None = None,
    n_processes: int = 1,
) -> Session:
    """Resume a run from its last checkpoint.

    Args:
        config: may differ from the run's in settings that do not change what is computed.
        last: the checkpoint, opened by `stopped_run`. The trainer reads from it, and closes it.
        named: the paths of texts that the user gave; see `find_sources`.
        n_processes: the number of processes that continue it.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ConfigError: another setting differs.
        DataError: the text is not the one that the run was trained on.
        DeviceError: the device is not available.
    """
    path, folder, meta = last.path, last.path.parent, last.meta
    if config.eval.max_chars == "auto":  # all evaluations of a run read the same characters
        same = config.eval.model_copy(update={"max_chars": meta.config.eval.max_chars})
        config = config.model_copy(update={"eval": same})
    _refuse_changes(meta.config, config, path, ignored=_BATCH_KEYS)
    corpus = open_corpus(
        config.data, known=meta.vocabulary, expected=meta.corpus.sha256, named=named
    )
    if corpus.sha256 != meta.corpus.sha256:
        raise DataError(
            f"{corpus.source}: not the text this run was trained on ({meta.corpus.chars:,} "
            f"characters then, {len(corpus):,} now); restore that text, or start a new run from "
            f"these weights with init_from={shlex.quote(str(folder))}"
        )
    check_vocabulary(path, meta, corpus.vocab.chars)
    config, _ = _fit_batch(config, corpus)
    _refuse_changes(meta.config, config, path)
    model = read_model(last)
    threads = config.train.threads or min(meta.threads, usable_cpus())
    train = config.train.model_copy(update={"threads": threads})
    compute = choose_compute(train, model, _recorded_device(meta, device), Choices.of(meta))
    run = Run(folder, config, corpus, compute, versions(), meta.progress.model_copy(), last)
    _refuse_passed_limits(meta.config.train, run)
    notices = corpus.notices + _resume_notices(meta, run, n_processes) + _warmup_notices(run)
    notices += _clock_notices(config)
    return Session(run, model, notices)


# --- what a resumed run may change ------------------------------------------------------------

_BATCH_KEYS = ("train.batch_size", "train.grad_accum")  # compared after `_fit_batch`


def _refuse_changes(old: Config, new: Config, path: Path, ignored: tuple[str, ...] = ()) -> None:
    """Raise ConfigError if settings differ that change what is computed, except `ignored`."""
    may_change = tuple(f"{name}." for name in changeable(Config))
    changed = [
        f"{key} ({shown(before)}, now {shown(after)})"
        for key, (before, after) in varying([old, new]).items()
        if not f"{key}.".startswith(may_change) and key not in ignored
    ]
    if changed:
        weights = f" (from these weights: init_from={shlex.quote(str(path.parent))})"
        raise ConfigError(
            f"{path}: a resumed run cannot change {', '.join(changed)}; keep the old value, or "
            "start a new run with name=NAME" + weights * (old.model == new.model)
        )


_MORE = {"max_steps": (50, "steps"), "max_epochs": (1, "epoch"), "max_seconds": (60, "seconds")}


def _refuse_passed_limits(old: TrainConfig, run: Run) -> None:
    """Raise ConfigError if a new limit of the run is below what the run has done already."""
    for key, exact in run.done().items():
        limit, so_far = getattr(run.config.train, key), round(exact, 6)
        if limit is not None and limit != getattr(old, key) and limit < so_far:
            more, unit = _MORE[key]
            raise ConfigError(
                f"train.{key}={limit:g}: this is the total of the run, which has {so_far:.12g} "
                f"already; for {more} {unit} more: train.{key}={so_far + more:.12g}"
            )


def _recorded_device(meta: Meta, name: str) -> str:
    """Return the recorded device if `name` is auto and the device is available, else `name`."""
    if name != "auto":
        return name
    try:
        choose_device(meta.device)
    except DeviceError:
        return name
    return meta.device


def _resume_notices(meta: Meta, run: Run, n_processes: int) -> list[str]:
    """Return a line for each difference between the resumed run and a run that never stopped."""
    was = meta.versions | asdict(Choices.of(meta)) | {"processes": meta.processes}
    now = run.versions | asdict(Choices.of(run.compute)) | {"processes": n_processes}
    known = [key for key in was if key in now]  # a stranger's checkpoint may have more
    changed = [f"{key} was {was[key]} and is {now[key]}" for key in known if was[key] != now[key]]
    notices = []
    if changed:
        notices.append(f"{'; '.join(changed)}: the run continues, but not with the same bits")
    before, after = meta.config.train, run.config.train
    has_new_limit = any(getattr(before, key) != getattr(after, key) for key in LIMITS)
    if has_new_limit and isinstance(after.schedule, CosineSchedule | WSDSchedule):
        notices.append(
            f"the {after.schedule.kind} schedule now ends at the new limit, so the learning rate "
            "changes at this step"
        )
    return notices


def _clock_notices(config: Config) -> list[str]:
    if config.train.max_seconds is None:
        return []
    return [
        "train.max_seconds: the schedule follows the clock, so another run with this config gives "
        "similar results, not the same bits"
    ]


def _validation_notices(corpus: Corpus) -> list[str]:
    chars = len(corpus.split("val"))
    if chars >= 2:
        return []
    return [
        f"the validation part has {chars} characters, so nothing is evaluated and there will be no "
        "best.safetensors; for a larger part, raise data.val_fraction"
    ]


# --- weights of a checkpoint -------------------------------------------------------------------


def _initialise_from(
    path: Path, config: Config, opened: Texts | None
) -> tuple[Corpus, CharModel, list[str]]:
    """Return the corpus, the model and notices of a new run with the weights of `path`.

    The vocabulary is that of the checkpoint, ids unchanged, followed by the text's new characters.
    Their rows are initialised as in a new model.
    """
    with open_checkpoint(path) as checkpoint:
        meta, old = checkpoint.meta, read_model(checkpoint)
    _refuse_other_architecture(meta.config, config, path)
    known = meta.vocabulary
    corpus = open_corpus(config.data, known, opened=opened)
    model = build_model(config.model, len(corpus.vocab), config.train.seed)
    copy_weights(old, model)
    new = corpus.vocab.chars[len(known) :]
    notices = [f"weights from {path} (step {meta.progress.step:,})"]
    if new:
        notices.append(
            f"the vocabulary grew from {len(known)} to {len(corpus.vocab)} characters; initialised "
            f"as in a new model: {describe(new[:5], more=len(new) > 5)}"
        )
    return corpus, model, notices


def _refuse_other_architecture(old: Config, new: Config, path: Path) -> None:
    if old.data.unit != new.data.unit:
        raise ConfigError(
            f"init_from={path}: data.unit is {new.data.unit} here and {old.data.unit} there, so "
            "ids have other meanings; use the same data.unit"
        )
    changed = [
        f"model.{key} is {shown(after)} here and {shown(before)} there"
        for key, (before, after) in varying([old.model, new.model]).items()
        if not key.endswith("dropout")
    ]
    if changed:
        raise ConfigError(
            f"init_from={path}: another architecture: {'; '.join(changed)}; use the same values"
        )


def versions() -> dict[str, str]:
    """Return the versions that a checkpoint records."""
    return {
        "charlm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": instruction_set() or platform.machine(),
    }
