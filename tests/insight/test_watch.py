"""The events that a watch writes to TensorBoard, and that they do not change the training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlm.checkpoint.events import EventWriter
from charlm.checkpoint.format import LAST
from charlm.insight.trace import trace
from charlm.insight.watch import Watch
from charlm.observer import Record
from charlm.training.session import Session
from tests.conftest import TinyConfig, train_with
from tests.training.helpers import KINDS, make_config, resume, same_tensors, start, train


class OwnFile(Watch):
    """A watch that writes to its own file, and not to that of the run.

    It takes no time by default, so that it skips no evaluation.
    """

    def __init__(self, ready: Session, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.file = EventWriter(ready.run.folder / "watched", ready.run.progress.step + 1)
        super().__init__(lambda: self.file, ready.run.corpus.split("val"), ready.model, clock)

    def close(self) -> None:
        self.file.close()


def read_events(folder: Path, name: str = "watched") -> Any:
    from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
        event_accumulator as reader,
    )

    everything = {"histograms": 0, "scalars": 0}  # 0: keep all
    return reader.EventAccumulator(str(folder / name), everything).Reload()


def run(text: Path, kind: str, out: Path, watched: bool, stop_at: int | None = None) -> Path:
    config = make_config(text, kind)
    folder = out / config.name
    ready = resume(config, folder, "cpu") if folder.exists() else start(config, out, "cpu")
    train(ready, stop_at, [OwnFile(ready)] if watched else [])
    return ready.run.folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_watched_run_has_the_same_weights(kind: str, tiny_text: Path, tmp_path: Path) -> None:
    watched = run(tiny_text, kind, tmp_path / "watched", watched=True, stop_at=6)
    run(tiny_text, kind, tmp_path / "watched", watched=True)  # resumed
    alone = run(tiny_text, kind, tmp_path / "alone", watched=False)
    assert same_tensors(watched / LAST, alone / LAST)
    assert not read_events(alone, ".").Tags()["histograms"]
    events = read_events(watched)
    units = {"gpt": ("mlp", "x"), "lstm": ("h", "c")}.get(kind, ("h",))
    gates = {"gru": ("reset", "update"), "lstm": ("input", "forget", "output")}.get(kind, ())
    names = [f"units/{name}" for name in units] + [f"gates/{name}" for name in gates]
    tags = events.Tags()
    assert set(tags["histograms"]) == {f"{name}/layer {i}" for name in names for i in (1, 2)}
    assert tags["images"] == [f"attention/layer {i}" for i in (1, 2) if kind == "gpt"]
    for tag in tags["histograms"]:
        # sorted: event files of the same second are read in any order
        assert sorted(event.step for event in events.Histograms(tag)) == [4, 8, 12]


def test_the_events_have_the_values_of_the_trace(tiny_text: Path, tmp_path: Path) -> None:
    ready = start(make_config(tiny_text, "lstm"), tmp_path, "cpu")
    watch = OwnFile(ready)
    watch.record(Record(3, "train", 1.0, 1.0, 1, 1.0))  # ignored: a training loss
    watch.record(Record(3, "val", 1.0, 1.0, 1, 1.0))
    watch.close()
    ids = ready.run.corpus.split("val")[:128].astype(np.int64)
    traced, _ = trace(ready.model, torch.from_numpy(ids)[None])
    events = read_events(ready.run.folder)
    (histogram,) = events.Histograms("units/c/layer 2")
    cells = traced.units["c"][1]
    assert histogram.histogram_value.num == cells.numel()
    assert histogram.histogram_value.sum == pytest.approx(float(cells.double().sum()), abs=1e-3)
    (share,) = events.Scalars("right-saturated/forget/layer 1")
    assert share.value == pytest.approx(float((traced.gates["forget"][0] > 0.9).double().mean()))


def test_a_histogram_leaves_out_numbers_that_its_bins_cannot_count(tmp_path: Path) -> None:
    events = EventWriter(tmp_path / "watched", 0)
    events.add_histogram("some", np.array([math.nan, -math.inf, 1e30, 1.0, 2.0]), 1)
    events.add_histogram("none", np.array([math.nan, 1e20]), 1)
    events.close()
    found = read_events(tmp_path)
    assert found.Tags()["histograms"] == ["some"]
    (histogram,) = found.Histograms("some")
    assert (histogram.histogram_value.num, histogram.histogram_value.sum) == (2, 3)


def test_it_takes_no_more_than_its_share_of_the_time(tiny_text: Path, tmp_path: Path) -> None:
    ready = start(make_config(tiny_text, "rnn"), tmp_path, "cpu")
    watch = OwnFile(ready, itertools.count(step=5).__next__)  # each call takes five seconds
    for step, elapsed in enumerate((100.0, 900.0, 1001.0, 1002.0, 1499.0, 1501.0)):
        watch.record(Record(step, "val", 1.0, 1.0, 1, elapsed))
    watch.close()
    steps = [event.step for event in read_events(ready.run.folder).Histograms("units/h/layer 1")]
    assert steps == [0, 2, 5]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_setting_turns_it_on_and_off(
    wanted: bool, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    raw = tiny_config("rnn")
    raw["eval"] |= {"insight": wanted}
    folder = train_with(raw, tmp_path)
    assert bool(read_events(folder, ".").Tags()["histograms"]) == wanted
