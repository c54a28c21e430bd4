"""Descriptions of runs and checkpoints, as lines of text. Needs no torch."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.checkpoint.format import BEST, LAST, Meta, Progress
from charlm.checkpoint.read import read_meta
from charlm.config import DataConfig
from charlm.config.describe import counted, describe_model
from charlm.units import bits

if TYPE_CHECKING:
    from charlm.data.corpus import Corpus
    from charlm.training.run import Run
    from charlm.training.session import Session
    from charlm.training.trainer import Outcome


def describe_run(ready: Session) -> list[str]:
    """The model, the text, the training and the run folder of a run that is about to start."""
    run, config = ready.run, ready.run.config
    corpus, train = run.corpus, config.train
    parts = {split: len(corpus.split(split)) for split in ("train", "val", "test")}
    shares = ", ".join(f"{count:,} {split}" for split, count in parts.items() if count)
    limits = run.limits
    ends = [f"{limits.steps:,} steps"] if limits.steps else []
    ends += [f"{limits.seconds:g} s"] if limits.seconds else []
    threads = f", {counted(run.compute.threads, 'thread')}" * (run.compute.device.type == "cpu")
    threads += _in_each(run.processes.size)
    names = dict.fromkeys([run.compute.kernel, run.compute.muon_kernel])
    kernel = "".join(f", {name} kernel" for name in names if name != "torch")
    epochs = (limits.steps or 0) / run.steps_per_epoch
    per_step = f"{train.batch_size} x {train.seq_len} characters"
    if train.batches == "items":
        per_step = counted(train.batch_size, "document")
    return [
        f"model   {describe_model(config.model)}, {ready.model.count_parameters():,} parameters",
        f"text    {corpus.source}, {len(corpus):,} {_units(config.data)} ({shares}), "
        f"{_vocabulary(corpus)}",
        f"train   {' or '.join(ends)} of {per_step}"
        f"{f' ({epochs:.2g} epochs)' if epochs else ''}, {train.optimizer.kind}; "
        f"{run.compute.device}{threads}, {run.compute.precision}{kernel}",
        *(f"checked {line}" for line in run.compute.checks),
        f"folder  {run.folder}" + (f", from step {run.progress.step:,}" * bool(run.progress.step)),
    ]


def _units(data: DataConfig) -> str:
    return "bytes" if data.unit == "byte" else "characters"


def _vocabulary(corpus: Corpus) -> str:
    if not corpus.vocab.limited:
        return f"vocabulary {len(corpus.vocab)}"
    share = corpus.n_unknown / len(corpus)
    return (
        f"vocabulary {len(corpus.vocab)} of {corpus.n_distinct:,} ({share:.2%} of the text is "
        "other characters, read as U+FFFD)"
    )


def describe_end(run: Run, outcome: Outcome, began_at: int, out: Path, device: str) -> list[str]:
    """How the run ended, where its files are, and the commands to use next."""
    progress, folder = run.progress, shlex.quote(str(run.folder))
    on = "" if device == "auto" else f" --device {device}"
    failed = counted(progress.evals_since_best, "evaluation")
    how = {
        "finished": "finished",
        "patience": f"stopped: no improvement in {failed}",
        "stopped": "interrupted",
    }[outcome]
    if outcome == "finished" and progress.step == began_at:
        how = "already finished"
    lines = [f"{how} at step {progress.step:,}, after {progress.elapsed_s:,.0f} s of training"]
    if progress.best_loss is not None:
        scored, val = progress.eval_chars or 0, len(run.corpus.split("val"))
        is_part = 0 < scored < val and run.config.eval.protocol != "windows"
        part = f", on the first {scored:,} of {val:,} validation characters" if is_part else ""
        lines.append(f"best    {_best(progress)}{part}")
    if progress.skipped_steps:
        skipped = counted(progress.skipped_steps, "step")
        lines.append(f"skipped {skipped} whose loss or gradient was not finite")
    kept = run.folder / (BEST if (run.folder / BEST).exists() else LAST)
    return [
        *lines,
        f"saved   {kept}",
        f"sample  charlm sample {folder} --temperature 0.8",
        f"inspect charlm inspect {folder}",
        f"curves  tensorboard --logdir {shlex.quote(str(out))}",
        f"resume  {_program(run)} train --resume {folder}{on}{_longer(run, outcome)}",
    ]


def _in_each(processes: int) -> str:
    return f" in each of {processes} processes" if processes > 1 else ""


def _program(run: Run) -> str:
    """The command `charlm` for the same number of processes."""
    processes = run.processes
    if processes.is_alone:
        return "charlm"
    here = f"--standalone --nproc-per-node {processes.size}"
    return f"torchrun {here if processes.size == processes.local_size else '...'} -m charlm"


def _longer(run: Run, outcome: Outcome) -> str:
    """The options that double the limits that ended the run: twice what it has done, or more.

    Nothing for a run that was interrupted.
    """
    if outcome == "stopped":
        return ""
    train, progress = run.config.train, run.progress
    done: dict[str, float] = {}
    if outcome == "patience":
        done["patience"] = progress.evals_since_best
    if run.limits.reached(progress.step, progress.wall_s):
        done |= run.done() | {"max_seconds": math.ceil(10 * progress.wall_s) / 10}
    limits = {key: max(value, done[key]) for key in done if (value := getattr(train, key))}
    if limits.keys() == {"max_seconds"}:
        minutes = float(f"{limits['max_seconds'] / 60:.2g}")
        return f" --minutes {minutes:.12g}"  # with --resume: that much more
    options = {"max_steps": "--steps ", "max_epochs": "--epochs "}
    return "".join(
        f" {options.get(key) or f'--set train.{key}='}{2 * limit:.12g}"
        for key, limit in limits.items()
    )


def describe_checkpoint(path: Path, meta: Meta) -> dict[str, str]:
    """The rows of the table that `charlm info` prints."""
    progress, units = meta.progress, _units(meta.config.data)
    last = path.with_name(LAST)
    newest = read_meta(last).progress if path.name == BEST and last.is_file() else None
    return {
        "checkpoint": f"{path} (format {meta.format}, {path.stat().st_size:,} bytes)",
        "run": meta.config.name,
        "model": f"{describe_model(meta.config.model)}, {meta.parameters:,} parameters",
        "vocabulary": f"{len(meta.vocab)} {units}"
        + (f": {meta.vocab[:80]!r}{'...' * (len(meta.vocab) > 80)}" if units != "bytes" else ""),
        "corpus": f"{meta.corpus.source}, {meta.corpus.chars:,} {units}",
        "corpus sha256": meta.corpus.sha256,
        "step": _step(progress),
        **({} if newest is None else {"last": f"{LAST}, at step {_step(newest)}"}),
        "best": _best(progress),
        "trained on": f"{meta.device}, {counted(meta.threads, 'thread')}"
        f"{_in_each(meta.processes)}, {meta.precision}, "
        f"{meta.kernel} layers",
        "versions": ", ".join(f"{name} {version}" for name, version in meta.versions.items()),
    }


def _best(progress: Progress) -> str:
    nats = progress.best_loss
    if nats is None:
        return "not evaluated yet"
    return f"{nats:.4f} nats/char, {bits(nats):.4f} bits/char, at step {progress.best_step:,}"


def _step(progress: Progress) -> str:
    finished = ", finished" * progress.finished
    return f"{progress.step:,}, after {progress.elapsed_s:,.0f} s of training{finished}"
