"""Shared by the parts of scripts/faults: random runs, runs that were never stopped, comparisons."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faults_child import Child, import_what_is_used, new_place, run_folder
from faults_common import Check

FEEDS = ("file", "folder", "list", "gz", "pipe")
WORDS = ("the", "a", "king", "fox", "sees", "loves", "every", "small", "old", "naïve", "☂", "狐")
SIGNALS: tuple[str, ...] = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")


@dataclass(frozen=True)
class RunPlan:
    """A run: its settings, its text, and how charlm gets the text.

    Attributes:
        settings: the config without the group `data.path`.
        feed: one of FEEDS.
    """

    settings: dict[str, Any]
    text: str
    feed: str

    def with_train(self, **changes: Any) -> RunPlan:
        """The plan with other settings of the group `train`."""
        train = self.settings["train"] | changes
        return replace(self, settings=self.settings | {"train": train})

    @property
    def digest(self) -> str:
        """A hash of everything that determines the result."""
        content = json.dumps([self.settings, self.text, self.feed], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def write(self, place: Path) -> list[str | Path]:
        """Write the text and the config into the place; returns the command that starts the run."""
        work = place / "work"
        lines = self.text.splitlines(keepends=True)
        halves = ["".join(half) for half in (lines[: len(lines) // 2], lines[len(lines) // 2 :])]
        paths: str | list[str] = str(work / "text.txt")
        if self.feed == "pipe":
            paths = "-"
        elif self.feed in ("folder", "list"):
            folder = work / "texts"
            folder.mkdir(exist_ok=True)
            names = [folder / f"{number}.txt" for number in range(2)]
            for name, half in zip(names, halves, strict=True):
                name.write_text(half, encoding="utf-8")
            paths = str(folder) if self.feed == "folder" else [str(name) for name in names]
        elif self.feed == "gz":
            paths = str(work / "text.txt.gz")
            Path(paths).write_bytes(gzip.compress(self.text.encode(), mtime=0))
        else:
            (work / "text.txt").write_text(self.text, encoding="utf-8")
        settings = self.settings | {"data": {**self.settings["data"], "path": paths}}
        (work / "run.yaml").write_text(json.dumps(settings), encoding="utf-8")
        return ["train", "--config", "run.yaml", "--out", "runs", "--device", "cpu"]

    def stdin(self) -> int | None:
        """A descriptor with the text to read, if the run gets it from a pipe."""
        if self.feed != "pipe":
            return None
        reader, writer = os.pipe()  # the text is smaller than the buffer of a pipe
        os.write(writer, self.text.encode())
        os.close(writer)
        return reader

    def start(self, command: Sequence[str | Path | int], place: Path, **options: Any) -> Child:
        """Start a command that may read the text from its standard input."""
        stdin = self.stdin()
        try:
            return Child(command, place, stdin=stdin, **options)
        finally:
            if stdin is not None:
                os.close(stdin)


RESUME = ["train", "--resume", "--name", "run", "--out", "runs", "--device", "cpu"]
NATIVE: list[Any] = ["sample", "runs/run", "--engine", "native", "--length", 20, "--seed", 1]


# --- drawing ---------------------------------------------------------------------------------


def draw(
    rng: random.Random,
    steps: int | None = None,
    feeds: tuple[str, ...] = FEEDS,
    kind: str | None = None,
) -> RunPlan:
    """Draw a run of a tiny model: any kind, optimizer, batches, text, evaluation and saving."""
    kind = kind or rng.choice(("rnn", "gru", "lstm", "mlp", "gpt"))
    documents, batches = _batches(rng, kind)
    model = _model(rng, kind)
    length = model["context"] if kind == "gpt" else rng.choice((4, 8, 16))
    steps = steps or rng.randint(6, 16)
    parts = rng.choice((1, 1, 2))
    train = {
        "batch_size": parts * rng.choice((1, 2, 4)),
        "grad_accum": parts,
        "seq_len": length,
        "batches": batches,
        "optimizer": {"kind": rng.choice(("sgd", "rmsprop", "adam", "adamw", "muon")), "lr": 0.01},
        "schedule": {
            "kind": rng.choice(("constant", "cosine", "exponential", "wsd")),
            "warmup_steps": rng.choice((0, 2)),
        },
        "max_steps": steps,
        "seed": rng.randrange(1000),
        "precision": "fp32",
        "compile": rng.choice(("off", "auto")),
        "kernels": "off",  # each trial would compile them; `crash` has some with them
        "threads": 1,
        "log_every": rng.choice((1, 3, 20)),
        "save_every": rng.choice((1, 2, 5, None)),
        "keep_every": rng.choice((None, None, 1, 3)),
        "keep_last": rng.choice((1, 2)),
        "patience": rng.choice((None, None, None, 2)),
    }
    if batches == "streams" and rng.random() < 0.3:
        train["fresh_state"] = 0.2
    return RunPlan(
        {
            "name": "run",
            "data": _data(rng, documents),
            "model": model,
            "train": train,
            "eval": {
                "every": rng.choice((1, 2, 4)),
                "protocol": rng.choice(("stream", "windows", *["items"] * documents)),
                "window": length,
                "n_windows": 8,
                "max_chars": rng.choice((100, 300)),
                "sample_every": rng.choice((None, 2, 5)),
                "insight": rng.random() < 0.5,
            },
            "sample": {"length": 20, "temperature": 0.9},
        },
        make_text(rng),
        rng.choice(feeds),
    )


def make_text(rng: random.Random) -> str:
    """A text of some thousand characters in short lines."""
    lines = (" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(rng.randint(60, 200)))
    return "\n".join(lines) + "\n"


def _batches(rng: random.Random, kind: str) -> tuple[bool, str]:
    documents = rng.random() < 0.3
    choices = ["windows"] + ["streams"] * (kind != "gpt") + ["items"] * documents
    return documents, rng.choice(choices)


def _model(rng: random.Random, kind: str) -> dict[str, Any]:
    layers = rng.choice((1, 2))
    dropout = rng.choice((0.0, 0.2))
    if kind == "gpt":
        return {
            "kind": kind,
            "n_layer": layers,
            "n_head": 2,
            "n_embd": rng.choice((8, 16)),
            "context": rng.choice((8, 16)),
            "dropout": dropout,
            "position": rng.choice(("learned", "sinusoidal", "rope")),
            "norm": rng.choice(("layernorm", "rmsnorm")),
            "mlp": rng.choice(("gelu", "relu2", "swiglu")),
            "tie_weights": rng.random() < 0.3,
        }
    size = {"kind": kind, "n_layer": layers, "hidden_size": rng.choice((4, 8, 32))}
    size["input"] = rng.choice(("embedding", "one_hot"))
    if kind == "mlp":
        f = rng.choice(("sigmoid", "tanh", "relu"))
        return size | {
            "n_embd": 4,
            "context": rng.choice((2, 5)),
            "dropout": dropout,
            "activation": f,
        }
    return size | {
        "dropout": dropout if layers > 1 else 0.0,
        "output_dropout": dropout,
        "weight_dropout": rng.choice((0.0, 0.0, 0.1)),
    }


def _data(rng: random.Random, documents: bool) -> dict[str, Any]:
    data: dict[str, Any] = {"val_fraction": 0.2, "documents": "lines" if documents else "none"}
    if rng.random() < 0.2:
        data["unit"] = "byte"
    elif rng.random() < 0.2:
        data["vocab_size"] = 12
    return data


# --- a run that was never stopped ------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A run that was never stopped: its place, and the seconds it took."""

    place: Path
    seconds: float

    @property
    def folder(self) -> Path:
        """The run folder."""
        return run_folder(self.place)


def reference(check: Check, plan: RunPlan) -> Reference:
    """Return the run of a plan that was never stopped; it is trained at the first call.

    Raises:
        RuntimeError: it fails.
    """
    place = check.folder / "references" / plan.digest
    new_place(place)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = place / "seconds"
        if not done.exists():
            began = time.monotonic()
            ended = plan.start(plan.write(place), place).wait()
            if ended.status or ended.late:
                raise RuntimeError(f"the run that is not stopped fails: {ended}\n{ended.err}")
            done.write_text(str(time.monotonic() - began))
        return Reference(place, float(done.read_text()))


def warm_up(check: Check) -> None:
    """Import everything that training, sampling, evaluating and inspecting import."""
    plan = draw(random.Random(0), steps=2, feeds=("file",))
    train: dict[str, Any] = plan.settings["train"] | {
        "optimizer": {"kind": "muon"},
        "schedule": {"kind": "cosine"},
        "patience": None,
    }
    evaluation = plan.settings["eval"] | {"every": 1, "sample_every": 1, "insight": True}
    plan = RunPlan(plan.settings | {"train": train, "eval": evaluation}, plan.text, "file")
    folder = check.folder.parent  # of all parts, so that this is done once
    if (folder / "warm-up").exists():
        return
    place = new_place(folder / "warm-up")
    commands: list[list[Any]] = [[*plan.write(place)], ["config", "check", "run.yaml"]]
    run = "runs/run"
    if not check.quick:
        commands += [["info", run], ["eval", run], ["inspect", run], ["data", "stats", "text.txt"]]
    commands += [["sample", run, "--engine", it, "--length", 3] for it in ("numpy", "torch")]
    import_what_is_used(folder, commands)
