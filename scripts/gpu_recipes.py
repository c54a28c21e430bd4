"""Parts of scripts/gpu_check that train: the losses that recipes reach, and after how long."""

from __future__ import annotations

import functools
import math
import pickle
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gpu_common import ROOT, TARGET, Check, Found, Task, running

from charlm.config import Config, DataConfig
from charlm.config.files import load_config
from charlm.data.corpus import open_corpus
from charlm.observer import Observer, Record
from charlm.training.session import start

# on top of the nanogpt recipe: the same size, a newer architecture, another optimizer, fewer steps
MUON = (
    "model.position=rope",
    "model.norm=rmsnorm",
    "model.mlp=relu2",
    "model.qk_norm=true",
    "model.tie_weights=false",
    "train.optimizer={kind: muon, lr: 0.02, adamw_lr: 4.0e-3, weight_decay: 0.1}",
    "train.schedule={kind: wsd, warmup_steps: 50}",
    "train.max_steps=1000",
)
# a GPU reads four times as many streams in the same time, so a quarter of the steps is enough
WIDE = (
    "train.batch_size=128",
    "train.max_steps=440",
    "train.schedule.warmup_steps=25",
    "train.optimizer.lr=0.03",
    "train.optimizer.adamw_lr=6.0e-3",
    "eval.every=50",
)
SCORED = (*("eval.protocol=windows", "eval.window=256", "eval.n_windows=12800"), "eval.every=100")
SMALL = {
    "gpt": ("model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.context=16"),
    "lstm": ("model.hidden_size=16", "train.seq_len=8"),
}
HURRIED = (
    *("train.batch_size=4", "train.max_steps=6", "train.threads=1", "eval.every=3"),
    *("train.schedule={kind: constant}", "eval.window=16", "eval.n_windows=8"),
)


def shrunk(check: Check, kind: str) -> tuple[str, ...]:
    """Settings that make a recipe tiny, with --quick, to check only that it runs."""
    return (*SMALL[kind], *HURRIED) if check.quick else ()


# --- ours ------------------------------------------------------------------------------------


class Watch(Observer):
    """Records the best loss, and when the target was reached."""

    def __init__(self) -> None:
        self.best: Record | None = None
        self.reached: Record | None = None

    def record(self, record: Record) -> None:
        if record.split != "val":
            return
        if self.best is None or record.loss < self.best.loss:
            self.best = record
        if self.reached is None and record.loss <= TARGET:
            self.reached = record


def recipe(check: Check) -> Found:
    """Train the nanogpt recipe to its end; the best loss, as nanoGPT reports it."""
    watch, seconds, over = train(check, config_of(check, "nanogpt", "gpt"), to_target=False)
    if watch.best is None:
        return Found("cut: no time for an evaluation", False)
    at = f"{watch.best.loss:.4f} at step {watch.best.step:,} ({watch.best.elapsed_s:.1f} s)"
    got = f"{at}; {seconds:.0f} s in all" + ("" if over else "; cut before its end")
    met = round(abs(watch.best.loss - 1.47), 4) <= 0.01
    reached = watch.reached.elapsed_s if watch.reached else None
    return Found(got, _judged(check, met and over), reached)


def race(name: str, kind: str, overrides: tuple[str, ...], check: Check) -> Found:
    """Train a recipe until it reaches the target: seconds of training without evaluation."""
    config = config_of(check, name, kind, *SCORED, *overrides)
    watch, seconds, over = train(check, config, to_target=True)
    if watch.best is None:
        return Found("cut: no time for an evaluation", False)
    if watch.reached is None:
        best = f"best {watch.best.loss:.4f} at step {watch.best.step:,}"
        cut = "" if over else "; cut before its end"
        return Found(f"not reached: {best}, {seconds:.0f} s in all{cut}", _judged(check, False))
    at = watch.reached
    where = f"step {at.step:,}, {at.loss:.4f}"
    got = f"{at.elapsed_s:.1f} s of training ({where}); {seconds:.0f} s in all"
    return Found(got, _judged(check, True), at.elapsed_s)


def train(check: Check, config: Config, to_target: bool) -> tuple[Watch, float, bool]:
    """Train in a temporary folder.

    Returns:
        What was seen; the seconds in all, with compiling, evaluation and checkpoints; and whether
        the run reached its end.
    """
    watch, began = Watch(), time.monotonic()

    def should_stop() -> bool:
        return check.late() or (to_target and watch.reached is not None)

    with tempfile.TemporaryDirectory() as folder:
        outcome = start(config, Path(folder), check.device).trainer([watch], should_stop).train()
    return watch, time.monotonic() - began, outcome == "finished"


def config_of(check: Check, name: str, kind: str, *overrides: str) -> Config:
    """The settings of a recipe in configs/, changed, without samples."""
    path = ROOT / "configs" / f"{name}.yaml"
    settings = ("eval.sample_every=null", *overrides, *shrunk(check, kind))
    return load_config(path, settings, data={"path": check.text})


def _judged(check: Check, met: bool) -> bool | None:
    """Whether a target was met; None for another text or a tiny model."""
    return met if check.comparable and not check.quick else None


# --- nanoGPT's own code ----------------------------------------------------------------------

ITERATION = re.compile(r"iter (\d+): loss")
EVALUATION = re.compile(r"step (\d+): train loss [^,]*, val loss ([\d.]+)")


class Timeline:
    """Reads the output of nanoGPT, with the time of each line."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float, float]] = []  # iteration, loss, seconds since the start
        self._seconds, self._iterations = 0.0, 0  # of pure training
        self._last: tuple[int, float] | None = None

    def hear(self, line: str, at: float) -> None:
        """Read a line that was printed `at` seconds after the start."""
        if found := EVALUATION.match(line):
            self.losses.append((int(found[1]), float(found[2]), at))
            self._last = None  # the next iteration's time has the evaluation in it
        elif found := ITERATION.match(line):
            number = int(found[1])
            if self._last is not None:
                self._iterations += number - self._last[0]
                self._seconds += at - self._last[1]
            self._last = number, at

    def seconds(self, iterations: int) -> float:
        """Seconds of training alone, without compiling and evaluation."""
        return iterations * self._seconds / self._iterations if self._iterations else math.nan


def nanogpt(check: Check) -> Found:
    """nanoGPT's own train.py, unchanged, with its Shakespeare settings."""
    assert check.nanogpt is not None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "nanoGPT"
        shutil.copytree(check.nanogpt, folder, ignore=shutil.ignore_patterns(".git", "assets"))
        _prepare(folder / "data" / "shakespeare_char", check)
        options = [f"--out_dir={name}/out"]
        if not check.is_cuda:
            options += ["--device=cpu", "--compile=False"]
        if check.quick:
            options += ["--max_iters=20", "--eval_interval=10", "--eval_iters=2", "--batch_size=4"]
            options += ["--block_size=16", "--n_layer=1", "--n_head=2", "--n_embd=16"]
            options += ["--log_interval=2"]
        command = [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py", *options]
        began = time.monotonic()
        timeline, used, tail = Timeline(), 0.0, ""
        with running(command, check.deadline - began, cwd=folder) as process:
            assert process.stdout is not None
            before = _in_use(check)
            for line in process.stdout:
                timeline.hear(line, time.monotonic() - began)
                used, tail = max(used, _in_use(check) - before), line.strip() or tail
            over = process.wait() == 0
    if not timeline.losses or not (over or check.late()):
        return Found(f"failed: {tail:.200}", False)
    return _told(timeline, over, used if check.is_cuda else None)


def _told(timeline: Timeline, over: bool, used: float | None) -> Found:
    """The row: the best loss, and the time to the target, or to the best where that is above it."""
    best = min(timeline.losses, key=lambda it: it[1])
    at = next((it for it in timeline.losses if it[1] <= TARGET), best)
    name = f"<= {TARGET}" if at[1] <= TARGET else "its best"
    got = (
        f"{name} after {timeline.seconds(at[0]):.1f} s of training (iteration {at[0]:,}, "
        f"{at[2]:.0f} s in all); best {best[1]:.4f} at {best[0]:,}"
    )
    cut = not over and at is best
    got += "" if over else "; cut before its end"
    value = None if cut else timeline.seconds(at[0])
    return Found(got, False if cut else None, value, memory_mb=used)


def _in_use(check: Check) -> float:
    """Memory of the card in use, MB."""
    if not check.is_cuda:
        return 0.0
    free, total = torch.cuda.mem_get_info(check.device)
    return (total - free) / 2**20


def _prepare(folder: Path, check: Check) -> None:
    """Write the text as train.py reads it: ids, nine tenths of them for training."""
    corpus = open_corpus(DataConfig.model_validate({"path": check.text}))
    ids = corpus.split("all")[:].astype(np.uint16)
    cut = int(len(ids) * 0.9)
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(corpus.vocab)}))


# --- what is asked for -----------------------------------------------------------------------

REACHED = f"{TARGET} (windows of 256)"
OWN = Task("nanoGPT's own train.py", "", nanogpt)
RACES = [
    Task("shakespeare-lstm", REACHED, functools.partial(race, "shakespeare-lstm", "lstm", ())),
    Task(
        "the same, batches of 128",
        REACHED,
        functools.partial(race, "shakespeare-lstm", "lstm", WIDE),
    ),
    Task("GPT with Muon", REACHED, functools.partial(race, "nanogpt", "gpt", MUON)),
]
TASKS = [*RACES, Task("nanogpt recipe", "1.46 to 1.48 (windows of 256)", recipe)]
BESIDE = Task("our time to the loss, over nanoGPT's", "0.25 at most", lambda _: Found(""))


def beside(values: Mapping[str, float | None], check: Check) -> Found:
    """The shorter of our times divided by theirs; `values` has the results by task name."""
    theirs = values.get(OWN.what)
    ours = [it for task in RACES if (it := values.get(task.what)) is not None]
    if not theirs:
        return Found("not known without nanoGPT's own time")
    if not ours:
        return Found("not known: we did not reach it", _judged(check, False))
    ratio = min(ours) / theirs
    return Found(f"{ratio:.2f}", _judged(check, ratio <= 0.25), ratio)
