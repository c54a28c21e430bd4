"""What a run reports: metrics.jsonl, samples.txt, observers, and a full disk."""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from charlm.data.vocab import Vocab
from charlm.errors import CheckpointError
from charlm.insight.watch import Watch
from charlm.observer import Observer, Record
from charlm.training.telemetry import RunLog
from tests.training.helpers import AfterEachStep, make_config, new_run, plain_config, start


def test_metrics_have_one_object_per_line_with_the_documented_keys(
    tiny_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text, "lstm", "train.log_every=3"), tmp_path)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    both = {"step", "split", "loss", "bits_per_char", "chars_seen", "elapsed_s"}
    assert [(record["step"], record["split"]) for record in records] == [
        (3, "train"),
        (4, "val"),
        (6, "train"),
        (8, "val"),
        (9, "train"),
        (12, "train"),
        (12, "val"),
    ]
    for record in records:
        extra = {"chars_per_s", "lr", "grad_norm"} if record["split"] == "train" else set()
        assert record.keys() == both | extra
        assert record["bits_per_char"] == pytest.approx(record["loss"] / math.log(2))
        assert record["chars_seen"] == 32 * record["step"]
    elapsed = [record["elapsed_s"] for record in records]
    assert elapsed == sorted(elapsed)


def test_samples_have_the_configured_length_and_characters_of_the_text(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, "gpt", "sample.prompt=ANNE", "sample.length=30")
    folder = new_run(config, tmp_path)
    vocab = Vocab.of(tiny_text.read_text(encoding="utf-8"))
    text = (folder / "samples.txt").read_text(encoding="utf-8")
    for step in (6, 12):
        sample = text.partition(f"--- step {step}\n")[2][: 4 + 30]
        assert sample.startswith("ANNE")
        vocab.encode(sample)
    assert len(text) == len("--- step 6\n--- step 12\n") + 2 * (4 + 30 + 2)


class Everything(Observer):
    """Keeps every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def progress(self, fraction: float) -> None:
        self.calls.append(("progress", fraction))

    def record(self, record: Record) -> None:
        self.calls.append((record.split, record.step))

    def sample(self, step: int, text: str) -> None:
        self.calls.append(("sample", (step, len(text))))

    def saved(self, path: Path) -> None:
        self.calls.append(("saved", path.name))

    def close(self) -> None:
        self.calls.append(("close", None))


def test_observers_are_called_in_order(tiny_text: Path, tmp_path: Path) -> None:
    config = plain_config(tiny_text, "rnn", "train.max_steps=3", "eval.every=2")
    observer = Everything()
    new_run(config, tmp_path, observers=[observer])
    assert observer.calls == [
        ("saved", "last.safetensors"),
        *[("train", 1), ("progress", pytest.approx(1 / 3))],
        *[("train", 2), ("progress", pytest.approx(2 / 3))],
        *[("val", 2), ("saved", "best.safetensors")],
        *[("train", 3), ("progress", 1.0)],
        *[("val", 3), ("saved", "best.safetensors")],
        ("saved", "last.safetensors"),
        ("close", None),
    ]


def test_a_run_closes_its_observers_when_it_fails(tiny_text: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    observer = Everything()
    with pytest.raises(KeyboardInterrupt):
        new_run(make_config(tiny_text), tmp_path, observers=[observer, AfterEachStep(fail)])
    assert observer.calls[-1] == ("close", None)


# --- a full disk -----------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process become larger than `size` bytes, as on a full disk."""
    import resource

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("call", ["open", "record", "sample", "watch"])
def test_the_call_that_does_not_fit_on_the_disk_raises(
    call: str, tiny_text: Path, tmp_path: Path
) -> None:
    """It does not leave the error to a later call, a thread, or close()."""
    ready = start(make_config(tiny_text), tmp_path)
    run, threads = ready.run, threading.active_count()
    log = RunLog(run.folder, run.config, torch.device("cpu"), {})
    watch = Watch(lambda: log.board.insight, run.corpus.split("val"), ready.model)
    training, val = (Record(3, split, 1.0, 1.0, 1, 1e9) for split in ("train", "val"))
    calls: dict[str, Callable[[], None]] = {
        "open": lambda: log.open(run.progress),
        "record": lambda: log.record(training),
        "sample": lambda: log.sample(3, "a"),
        "watch": lambda: watch.record(val),
    }
    for name in list(calls)[: list(calls).index(call)]:
        calls[name]()
    size = sum(path.stat().st_size for path in run.folder.glob("events.out.tfevents.*"))
    with largest_file(size + 10), pytest.raises(CheckpointError, match=r"cannot write: File too l"):
        calls[call]()
    assert threading.active_count() == threads
    log.close()
