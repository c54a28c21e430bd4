"""Beginning a run: anew, from another model's weights, or where it stopped."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.read import find_checkpoint, read_meta
from charlm.checkpoint.weights import copy_weights, read_model
from charlm.checkpoint.write import writing
from charlm.config import Config, CosineSchedule, WSDSchedule
from charlm.config.base import changeable
from charlm.config.files import load_config, to_yaml
from charlm.data.amounts import fit_batch
from charlm.data.corpus import Corpus, Texts, open_corpus
from charlm.data.vocab import describe
from charlm.devices import choose_device
from charlm.errors import CheckpointError, ConfigError, DataError, DeviceError
from charlm.machine import instruction_set, usable_cpus
from charlm.models import CharModel, build_model
from charlm.observer import Observer
from charlm.training.choose import choose_compute
from charlm.training.compute import Compute
from charlm.training.trainer import Run, Sampler, Trainer
from charlm.version import __version__


@dataclass(frozen=True)
class Session:
    """A run ready to be trained, and what a user should know of how it came about."""

    run: Run
    model: CharModel
    notices: list[str]

    def trainer(
        self,
        observers: list[Observer],
        should_stop: Callable[[], bool],
        sampler: Sampler | None = None,
    ) -> Trainer:
        return Trainer(self.run, self.model, observers, should_stop, sampler)


def start(
    config: Config,
    out: Path,
    device: str,
    init_from: Path | None = None,
    opened: Texts | None = None,
) -> Session:
    """A new run in the folder out / config.name, with fresh weights or those of a checkpoint.

    Args:
        opened: the config's texts, if they are open already.

    Raises:
        CheckpointError: the folder exists or cannot be made; init_from does not fit.
        DataError, DeviceError: the text or the device is not to be had.
    """
    folder = out / config.name
    refuse_to_overwrite(folder)
    notices: list[str] = []
    if init_from is None:
        corpus = open_corpus(config.data, opened=opened)
        model = build_model(config.model, len(corpus.vocab), config.train.seed)
    else:
        corpus, model, notices = _initialise_from(find_checkpoint(init_from), config, opened)
    config, more = _fitted(config, corpus)
    notices = corpus.notices + notices + more
    run = Run(folder, config, corpus, choose_compute(config.train, model, device), _versions())
    _check_warmup(run)
    notices += [*run.compute.notices, *_clock_notices(config), *_validation_notices(corpus)]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return Session(run, model, notices)


def refuse_to_overwrite(folder: Path) -> None:
    """A new run takes no folder that has something in it.

    Raises:
        CheckpointError: it has.
    """
    if folder.exists() and not _never_began(folder):
        raise CheckpointError(
            f"{folder}: this run exists and is not overwritten; go on with it by resume=True, or "
            "start another with name=NAME"
        )


def _fitted(config: Config, corpus: Corpus) -> tuple[Config, list[str]]:
    """The config with a batch that fits the text, and a word on it where it is another."""
    if corpus.n_distinct > 1 == len(corpus.vocab):
        raise DataError(
            f"{corpus.source}: data.min_count {config.data.min_count} leaves no character of this "
            "text in the vocabulary; lower it"
        )
    if corpus.n_distinct < 2:
        raise DataError(
            f"{corpus.source}: this text is one character over and over, so there is nothing to "
            "learn; give another"
        )
    train, notices = fit_batch(corpus.split("train"), config.train)
    return config.model_copy(update={"train": train}), notices


def _check_warmup(run: Run) -> None:
    """A limit in epochs is one in steps once the text is known."""
    warmup = run.config.train.schedule.warmup_steps
    if run.limits.steps is not None and warmup >= run.limits.steps:
        raise ConfigError(
            f"train.schedule.warmup_steps: {warmup} is not below the {run.limits.steps} steps of "
            "the run; the rate would never reach its height"
        )


def _never_began(folder: Path) -> bool:
    """Whether a run was killed here before its first checkpoint, and left nothing to lose."""
    return folder.is_dir() and all(
        path.name == "last.tmp" or (path.name == "config.yaml" and _is_ours(path))
        for path in folder.iterdir()
    )


def _is_ours(path: Path) -> bool:
    """Whether a config is as we write it, and not one of the user's own."""
    try:
        return path.read_text(encoding="utf-8") == to_yaml(load_config(path))
    except (ConfigError, OSError, UnicodeDecodeError):
        return False


def resume(config: Config, folder: Path, device: str) -> Session:
    """A run where `last` left it. `config` may differ from the run's in limits and records only.

    Raises:
        CheckpointError: no checkpoint, or one that cannot be read.
        ConfigError: another setting differs.
        DataError: the text is not the one the run was trained on.
    """
    path = folder / LAST
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {LAST} to resume from; start a new run there")
    meta = read_meta(path)
    _refuse_changes(meta.config, config, path, but=_FITTED)
    corpus = open_corpus(config.data, known=meta.vocabulary, expected=meta.corpus.sha256)
    if corpus.sha256 != meta.corpus.sha256:
        raise DataError(
            f"{corpus.source}: not the text this run was trained on ({meta.corpus.chars:,} "
            f"characters then, {len(corpus):,} now); bring that back, or start a new run from "
            f"these weights with init_from={folder}"
        )
    config, _ = _fitted(config, corpus)
    _refuse_changes(meta.config, config, path)
    model = read_model(path, meta)
    threads = config.train.threads or min(meta.threads, usable_cpus())
    train = config.train.model_copy(update={"threads": threads})
    compute = choose_compute(train, model, _recorded_device(meta, device), meta)
    run = Run(folder, config, corpus, compute, _versions(), meta.progress.model_copy(), meta)
    notices = corpus.notices + _resume_notices(meta, run) + _clock_notices(config)
    return Session(run, model, notices)


# --- what a resumed run may change ------------------------------------------------------------

_FITTED = ("train.batch_size", "train.grad_accum")  # compared once the text is known


def _refuse_changes(old: Config, new: Config, path: Path, but: tuple[str, ...] = ()) -> None:
    before, after = leaves(old.model_dump(mode="json")), leaves(new.model_dump(mode="json"))
    free = tuple(f"{name}." for name in changeable(Config))
    changed = [
        f"{key} ({before.get(key)!r}, now {after.get(key)!r})"
        for key in _differing(before, after)
        if not f"{key}.".startswith(free) and key not in but
    ]
    if changed:
        same_model = old.model == new.model
        raise ConfigError(
            f"{path}: a resumed run cannot change {', '.join(changed)}; leave it as it was, or "
            "start a new run with name=NAME"
            + (f" (from these weights: init_from={path.parent})" if same_model else "")
        )


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The keys under which two dictionaries do not have the same."""
    return [key for key in before | after if before.get(key) != after.get(key)]


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= leaves(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _recorded_device(meta: Meta, name: str) -> str:
    """The device that the run had before, where `auto` leaves the choice and it is still there."""
    if name != "auto":
        return name
    try:
        choose_device(meta.device)
    except DeviceError:
        return name
    return meta.device


def _resume_notices(meta: Meta, run: Run) -> list[str]:
    compute = run.compute
    was = meta.versions | _machine(meta)
    now = run.versions | _machine(compute)
    changed = [f"{key} was {was[key]} and is {now[key]}" for key in was if was[key] != now.get(key)]
    notices = []
    if changed:
        notices.append(f"{'; '.join(changed)}: the run goes on, but not to the very same bits")
    before, after = meta.config.train, run.config.train
    moved = any(getattr(before, key) != getattr(after, key) for key in _LIMITS)
    if moved and isinstance(after.schedule, CosineSchedule | WSDSchedule):
        notices.append(
            f"the {after.schedule.kind} schedule now runs to the new limit, so the learning rate "
            "is not the one the run ended with"
        )
    return notices


_LIMITS = ("max_steps", "max_epochs", "max_seconds")


def _machine(it: Meta | Compute) -> dict[str, str]:
    names = ("device", "precision", "threads", "kernel", "muon")
    return {name: str(getattr(it, name)) for name in names}


def _clock_notices(config: Config) -> list[str]:
    if config.train.max_seconds is None:
        return []
    return [
        "train.max_seconds: the schedule follows the clock, so the run is repeatable in kind but "
        "not to the bit"
    ]


def _validation_notices(corpus: Corpus) -> list[str]:
    chars = len(corpus.split("val"))
    if chars >= 2:
        return []
    return [
        f"the validation part has {chars} characters, so nothing is evaluated and there will be no "
        "best.safetensors; data.val_fraction holds more out"
    ]


# --- weights from elsewhere -------------------------------------------------------------------


def _initialise_from(
    path: Path, config: Config, opened: Texts | None
) -> tuple[Corpus, CharModel, list[str]]:
    """The corpus and model of a new run that begins with the weights of `path`.

    The vocabulary is the old one, ids unchanged, with the text's new characters behind it; their
    rows are initialised as in a new model.
    """
    meta = read_meta(path)
    _refuse_other_architecture(meta.config, config, path)
    known = meta.vocabulary
    corpus = open_corpus(config.data, known, opened=opened)
    model = build_model(config.model, len(corpus.vocab), config.train.seed)
    copy_weights(read_model(path, meta), model)
    new = corpus.vocab.chars[len(known) :]
    notices = [f"weights from {path} (step {meta.progress.step:,})"]
    if new:
        notices.append(
            f"the vocabulary grew from {len(known)} to {len(corpus.vocab)} characters; new, and "
            f"freshly initialised: {describe(new[:5], more=len(new) > 5)}"
        )
    return corpus, model, notices


def _refuse_other_architecture(old: Config, new: Config, path: Path) -> None:
    if old.data.unit != new.data.unit:
        raise ConfigError(
            f"init_from={path}: data.unit is {new.data.unit} here and {old.data.unit} there; "
            "their ids do not mean the same"
        )
    before, after = old.model.model_dump(), new.model.model_dump()
    changed = [
        f"model.{key} is {after.get(key)!r} here and {before.get(key)!r} there"
        for key in _differing(before, after)
        if not key.endswith("dropout")
    ]
    if changed:
        raise ConfigError(f"init_from={path}: another architecture: {'; '.join(changed)}")


def _versions() -> dict[str, str]:
    return {
        "charlm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": instruction_set() or platform.machine(),
    }
