"""Helpers for the tests of training: tiny runs, their files, and comparing two of them."""

from __future__ import annotations

import functools
import json
import subprocess
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from charlm.checkpoint import run_folder
from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import open_checkpoint, read_meta
from charlm.checkpoint.weights import load_model
from charlm.config import Config
from charlm.config.files import parse_config
from charlm.evaluation.evaluate import Score
from charlm.models import CharModel, build_model
from charlm.observer import Observer
from charlm.sampling.preview import preview
from charlm.training import session, validation
from charlm.training.session import Session
from charlm.training.trainer import Outcome
from tests.conftest import KINDS as KINDS  # for the tests that import this module
from tests.models import model_config

OPTIMIZERS = ("sgd", "rmsprop", "adam", "adamw", "muon")
CARRYING = tuple(kind for kind in KINDS if kind != "gpt")  # a state
NETWORKS = [(kind, "streams") for kind in CARRYING] + [(kind, "windows") for kind in KINDS]
PATIENCE_S = 300.0  # enough for a busy machine; a test that hangs should end
NO_DROPOUT = tuple(f"model.{prefix}dropout=0" for prefix in ("", "input_", "output_"))


def make_config(text: Path, kind: str = "lstm", *overrides: str) -> Config:
    """A config of 12 steps with two layers, dropout, evaluations and samples."""
    model: dict[str, Any] = {"kind": kind, "n_layer": 2, "dropout": 0.2}
    train: dict[str, Any] = {"batch_size": 4, "max_steps": 12, "log_every": 1, "save_every": 5}
    if kind == "gpt":
        model |= {"n_head": 2, "n_embd": 8, "context": 8}
    else:
        mlp = {"n_embd": 4, "context": 5}
        model |= {"hidden_size": 8}
        model |= mlp if kind == "mlp" else {"input_dropout": 0.1, "output_dropout": 0.1}
        train |= {"seq_len": 8}
    raw = {
        "name": "run",
        "data": {"path": str(text), "val_fraction": 0.1},
        "model": model,
        "train": train | {"threads": 1, "precision": "fp32", "compile": "off", "kernels": "off"},
        "eval": {"every": 4, "sample_every": 6, "max_chars": 200},
        "sample": {"length": 12},
    }
    return parse_config(raw, overrides)


def plain_config(text: Path, kind: str = "lstm", *overrides: str) -> Config:
    """A config that a simple loop can follow: constant learning rate, no dropout, no clipping."""
    off = NO_DROPOUT[:1] if kind in ("mlp", "gpt") else NO_DROPOUT
    simple = ("train.schedule.kind=constant", "train.grad_clip=0", "eval.every=null")
    return make_config(text, kind, *off, *simple, "eval.sample_every=null", *overrides)


def train(
    ready: Session,
    stop_at: int | None = None,
    observers: list[Observer] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Train to the end, or stop at a step."""
    progress = ready.run.progress
    trainer = ready.trainer(
        observers or [],
        lambda: stop_at is not None and progress.step >= stop_at,
        functools.partial(preview, ready.run.config, ready.run.corpus.vocab),
        clock,
    )
    return trainer.train()


def start(config: Config, out: Path, device: str = "cpu", init_from: Path | None = None) -> Session:
    """Start a run in out / config.name. Its folder is not locked any more."""
    folder = out / config.name
    with run_folder.new_run(folder):
        ready = session.start(config, folder, device, init_from)
    folder.mkdir(parents=True, exist_ok=True)  # one that is empty was removed
    return ready


def resume(config: Config, folder: Path, device: str = "cpu") -> Session:
    """Resume a run. Its folder is not locked any more; the checkpoint is open until training."""
    with run_folder.stopped_run(folder), ExitStack() as stack:
        last = stack.enter_context(open_checkpoint(folder / LAST))
        ready = session.resume(config, last, device)
        weakref.finalize(ready.run, stack.pop_all().close)
    return ready


def new_run(
    config: Config,
    out: Path,
    stop_at: int | None = None,
    observers: list[Observer] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Start a run and train; return its folder."""
    ready = start(config, out)
    train(ready, stop_at, observers, clock)
    return ready.run.folder


def go_on(config: Config, folder: Path, stop_at: int | None = None) -> Outcome:
    """Resume a run, with the global generator of torch in another state than before."""
    torch.manual_seed(99)
    torch.rand(7)
    return train(resume(config, folder), stop_at)


def metrics(
    folder: Path, split: str | None = None, lines: int | None = None
) -> list[dict[str, Any]]:
    """Return the records of metrics.jsonl, all or the first lines, without times and speeds."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    records: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()[:lines]]
    clock = ("elapsed_s", "chars_per_s")
    return [
        {key: value for key, value in record.items() if key not in clock}
        for record in records
        if split in (None, record["split"])
    ]


def same_tensors(one: Path, other: Path) -> bool:
    """Return whether two checkpoints have the same tensors, bit for bit."""
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


def assert_same_run(folder: Path, reference: Path) -> None:
    """Check that two runs have the same tensors, progress, records and samples."""
    for name in (LAST, BEST):
        ours, theirs = load_file(folder / name), load_file(reference / name)
        assert ours.keys() == theirs.keys()
        differ = [key for key in ours if not torch.equal(ours[key], theirs[key])]
        assert not differ, f"{name}: {differ}"
        times = {"elapsed_s", "logged_elapsed_s", "wall_s", "evaluated_s", "sampled_s"}
        done, expected = (
            read_meta(each / name).progress.model_dump(exclude=times)
            for each in (folder, reference)
        )
        assert done == expected, name
    assert metrics(folder) == metrics(reference)
    samples = [(each / "samples.txt").read_bytes() for each in (folder, reference)]
    assert samples[0] == samples[1]


def assert_resumes(config: Config, out: Path, *stops: int) -> Path:
    """Check that a run stopped at these steps is the run never stopped; return its folder."""
    reference = new_run(config, out / "never")
    folder = new_run(config, out / "stopped", stop_at=stops[0])
    for step in stops[1:]:
        assert go_on(config, folder, stop_at=step) == "stopped"
        assert read_meta(folder / LAST).progress.step == step
    assert go_on(config, folder) == "finished"
    assert_same_run(folder, reference)
    return folder


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait until something has happened in a running process."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def weights_of(model: CharModel) -> dict[str, Tensor]:
    """Return a copy of a model's weights by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def saved_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint by name."""
    tensors = load_file(path)
    return {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}


def saved_model(path: Path) -> CharModel:
    """Return the model of a checkpoint, on the CPU."""
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, "cpu")


class AfterEachStep(Observer):
    """Calls a function after every training step."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def progress(self, fraction: float) -> None:  # noqa: ARG002
        self._call()


def script_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Make the evaluations during training return these losses, one after another."""
    scripted = iter(losses)
    monkeypatch.setattr(
        validation, "evaluate", lambda *_, **__: Score(10 * next(scripted), 10, "stream", "")
    )


def decided_model(kind: str, vocab_size: int, context: int, **more: Any) -> CharModel:
    """An untrained network with large weights and dropout.

    Its predictions are far from uniform, so that a wrong context changes them. Dropout must not.
    """
    size = {
        "gpt": {"n_head": 2, "n_embd": 8, "context": context},
        "mlp": {"hidden_size": 8, "n_embd": 4, "context": 5},
    }.get(kind, {"hidden_size": 8})
    raw = {"kind": kind, "n_layer": 2, "dropout": 0.5} | size | more
    model = build_model(model_config(raw), vocab_size, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8 if kind == "gpt" else 2)
    return model
