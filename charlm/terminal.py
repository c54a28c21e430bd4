"""What training looks like in a terminal, and in a pipe: plain lines, no control characters."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from charlm.arguments import RUNS
from charlm.config import GPTConfig, RecurrentConfig
from charlm.training.checkpoint import BEST, LAST, Meta
from charlm.training.loss import NATS_PER_BIT
from charlm.training.schedule import Limits
from charlm.training.session import Session
from charlm.training.telemetry import Observer, Record
from charlm.training.trainer import Outcome, Run

SECONDS_BETWEEN_LINES = 5.0  # of training losses, in a pipe


class View(Observer):
    """A progress bar with the losses on a terminal; else a line now and then."""

    def __init__(self, run: Run) -> None:
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self.closed = False  # nobody reads standard output any more
        self._best = run.progress.best_loss
        self._fraction = self._started_at = 0.0
        self._started = self._spoke = time.monotonic()

    def progress(self, fraction: float) -> None:
        if self._terminal and self._bar is None:
            self._bar = tqdm(
                total=1.0,
                initial=fraction,
                bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]",
                dynamic_ncols=True,
                leave=False,
            )
        if self._bar is not None:
            self._bar.update(fraction - self._bar.n)
        elif self._fraction == 0.0:
            self._started_at, self._started = fraction, time.monotonic()
        self._fraction = fraction

    def record(self, record: Record) -> None:
        text = f"{record.loss:.4f} nats/char  {record.bits_per_char:.4f} bits/char"
        speed = f"  {record.chars_per_s:,.0f} chars/s" if record.chars_per_s else ""
        if record.split == "val":
            better = self._best is None or record.loss < self._best
            self._best = record.loss if better else self._best
            best = "  best so far" if better else ""
            self._line(f"step {record.step:>6,}  val    {text}{self._bold(best)}")
        elif self._bar is not None:
            self._bar.set_description_str(
                f"loss {record.loss:.3f} nats, {record.bits_per_char:.3f} bits/char,"
                f"{speed.replace('  ', ' ')}",
                refresh=False,
            )
        elif time.monotonic() - self._spoke >= SECONDS_BETWEEN_LINES:
            self._spoke = time.monotonic()
            self._line(f"step {record.step:>6,}  train  {text}{speed}{self._time_left()}")

    def sample(self, step: int, text: str) -> None:
        self._line(self._dim(f"--- the model writes, at step {step:,}"))
        self._line(text)
        self._line(self._dim("---"))

    def notice(self, text: str) -> None:
        tqdm.write(f"charlm: note: {text}", file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _line(self, text: str) -> None:
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except OSError:
            self.closed = True

    def _time_left(self) -> str:
        done = self._fraction - self._started_at
        if done <= 0:
            return ""
        seconds = (time.monotonic() - self._started) * (1 - self._fraction) / done
        return f"  {tqdm.format_interval(seconds)} left"

    def _dim(self, text: str) -> str:
        return f"\033[2m{text}\033[0m" if self._colour else text

    def _bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self._colour and text else text


def describe_run(ready: Session) -> list[str]:
    """What is about to be trained, on what, and where."""
    run, config = ready.run, ready.run.config
    corpus, train = run.corpus, config.train
    parts = {split: len(corpus.split(split)) for split in ("train", "val", "test")}
    shares = ", ".join(f"{count:,} {split}" for split, count in parts.items() if count)
    chars_per_step = train.batch_size * train.seq_len
    limits = Limits.of(train, chars_per_step, parts["train"])
    ends = [f"{limits.steps:,} steps" if limits.steps else ""]
    ends += [f"{limits.seconds:g} s" if limits.seconds else ""]
    threads = (
        f", {run.compute.threads} thread{'s' * (run.compute.threads > 1)}"
        if run.compute.device.type == "cpu"
        else ""
    )
    epochs = (limits.steps or 0) * chars_per_step / parts["train"]
    return [
        f"model   {describe_model(config.model)}, {ready.model.count_parameters():,} parameters",
        f"text    {corpus.source}, {len(corpus):,} characters ({shares}), "
        f"vocabulary {len(corpus.vocab)}",
        f"train   {' or '.join(filter(None, ends))} of {train.batch_size} x {train.seq_len} "
        f"characters{f' ({epochs:.2g} epochs)' if epochs else ''}, {train.optimizer.kind}; "
        f"{run.compute.device}{threads}, {run.compute.precision}",
        f"folder  {run.folder}" + (f", from step {run.progress.step:,}" * bool(run.progress.step)),
    ]


def describe_model(model: RecurrentConfig | GPTConfig) -> str:
    """`lstm, 2 layers of 128`."""
    layers = f"{model.n_layer} layer{'s' * (model.n_layer > 1)}"
    if isinstance(model, GPTConfig):
        return f"gpt, {layers} of {model.n_embd}, {model.n_head} heads, context {model.context}"
    return f"{model.kind}, {layers} of {model.hidden_size}"


def describe_end(run: Run, outcome: Outcome, began_at: int, out: Path) -> list[str]:
    """How the run ended, where it is, and what to do next."""
    progress, folder = run.progress, shlex.quote(str(run.folder))
    where = "" if out == RUNS else f" --out {shlex.quote(str(out))}"
    go_on = f"charlm train --resume --name {run.config.name}{where}"
    more = f"{go_on} --set train.max_steps={2 * max(progress.step, 1)}"
    how = {
        "finished": "finished",
        "patience": f"stopped: no better for {progress.evals_since_best} evaluations",
        "stopped": "interrupted and saved",
    }[outcome]
    if outcome == "finished" and progress.step == began_at:
        how = "already finished"
    lines = [f"{how} at step {progress.step:,}, after {progress.elapsed_s:,.0f} s of training"]
    if progress.best_loss is not None:
        lines.append(
            f"best    {progress.best_loss:.4f} nats/char, "
            f"{progress.best_loss / NATS_PER_BIT:.4f} bits/char, at step {progress.best_step:,}"
        )
    if progress.skipped_steps:
        lines.append(f"skipped {progress.skipped_steps:,} steps whose loss was not finite")
    kept = run.folder / (BEST if (run.folder / BEST).exists() else LAST)
    return [
        *lines,
        f"saved   {kept}",
        f"write   charlm sample {folder} --temperature 0.8",
        f"curves  tensorboard --logdir {shlex.quote(str(out))}",
        f"go on   {go_on if outcome == 'stopped' else more}",
    ]


def describe_checkpoint(path: Path, meta: Meta) -> dict[str, str]:
    """What a checkpoint is, a line each."""
    progress, best = meta.progress, meta.progress.best_loss
    return {
        "checkpoint": f"{path} (format {meta.format}, {path.stat().st_size:,} bytes)",
        "run": meta.config.name,
        "model": f"{describe_model(meta.config.model)}, {meta.parameters:,} parameters",
        "vocabulary": f"{len(meta.vocab)} characters: {meta.vocab[:80]!r}"
        + ("..." if len(meta.vocab) > 80 else ""),
        "corpus": f"{meta.corpus.source}, {meta.corpus.chars:,} characters",
        "corpus sha256": meta.corpus.sha256,
        "step": f"{progress.step:,}, after {progress.elapsed_s:,.0f} s of training"
        + (", finished" if progress.finished else ""),
        "best": "not evaluated yet"
        if best is None
        else f"{best:.4f} nats/char, {best / NATS_PER_BIT:.4f} bits/char, "
        f"at step {progress.best_step:,}",
        "trained on": f"{meta.device}, {meta.threads} threads, {meta.precision}",
        "versions": ", ".join(f"{name} {version}" for name, version in meta.versions.items()),
    }
