"""What TensorBoard is shown of a network during training, and that training does not notice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from charlm.checkpoint.format import LAST
from charlm.insight import watch as watching
from charlm.insight.trace import trace
from charlm.insight.watch import Watch
from charlm.observer import Record
from charlm.training import session
from charlm.training.session import Session
from tests.conftest import TinyConfig, train_with
from tests.training.helpers import KINDS, make_config, same_tensors, train


def watch_of(ready: Session) -> Watch:
    return Watch(ready.run.folder, ready.run.corpus.split("val"), ready.model)


def shown(folder: Path) -> Any:
    from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
        event_accumulator as reader,
    )

    everything = {"histograms": 0, "scalars": 0}
    return reader.EventAccumulator(str(folder / "tb" / "insight"), everything).Reload()


def run(text: Path, kind: str, out: Path, watched: bool, stop_at: int | None = None) -> Path:
    config = make_config(text, kind)
    folder = out / config.name
    ready = (
        session.resume(config, folder, "cpu")
        if folder.exists()
        else session.start(config, out, "cpu")
    )
    train(
        ready,
        stop_at,
        [watch_of(ready)] if watched else [],
    )
    return ready.run.folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_watched_run_has_the_weights_of_one_that_is_not(
    kind: str, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SHARE", 1e9)
    watched = run(tiny_text, kind, tmp_path / "watched", watched=True, stop_at=6)
    run(tiny_text, kind, tmp_path / "watched", watched=True)  # resumed
    alone = run(tiny_text, kind, tmp_path / "alone", watched=False)
    assert same_tensors(watched / LAST, alone / LAST)
    assert not (alone / "tb" / "insight").exists()
    events = shown(watched)
    units = {"gpt": ("mlp", "x"), "lstm": ("h", "c")}.get(kind, ("h",))
    gates = {"gru": ("reset", "update"), "lstm": ("input", "forget", "output")}.get(kind, ())
    names = [f"units/{name}" for name in units] + [f"gates/{name}" for name in gates]
    tags = events.Tags()
    assert set(tags["histograms"]) == {f"{name}/layer {i}" for name in names for i in (1, 2)}
    assert tags["images"] == (["attention"] if kind == "gpt" else [])
    for tag in tags["histograms"]:
        # sorted: files of two sessions begun in one second are read in any order
        assert sorted(event.step for event in events.Histograms(tag)) == [4, 8, 12]


def test_what_is_shown_is_what_the_network_does(tiny_text: Path, tmp_path: Path) -> None:
    ready = session.start(make_config(tiny_text, "lstm"), tmp_path, "cpu")
    watch = watch_of(ready)
    watch.record(Record(3, "train", 1.0, 1.0, 1, 1.0))  # a training loss is none of its business
    watch.record(Record(3, "val", 1.0, 1.0, 1, 1.0))
    watch.close()
    ids = ready.run.corpus.split("val")[:128].astype(np.int64)
    told, _ = trace(ready.model, torch.from_numpy(ids)[None])
    events = shown(ready.run.folder)
    (histogram,) = events.Histograms("units/c/layer 2")
    cells = told.units["c"][1]
    assert histogram.histogram_value.num == cells.numel()
    assert histogram.histogram_value.sum == pytest.approx(float(cells.double().sum()), abs=1e-3)
    (share,) = events.Scalars("right-saturated/forget/layer 1")
    assert share.value == pytest.approx(float((told.gates["forget"][0] > 0.9).double().mean()))


def test_it_takes_no_more_than_its_share_of_the_time(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = session.start(make_config(tiny_text, "rnn"), tmp_path, "cpu")
    now = iter(range(0, 1000, 5))  # each look takes five seconds
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: next(now)))
    watch = watch_of(ready)
    for step, elapsed in enumerate((100.0, 900.0, 1001.0, 1002.0, 1499.0, 1501.0)):
        watch.record(Record(step, "val", 1.0, 1.0, 1, elapsed))
    watch.close()
    steps = [event.step for event in shown(ready.run.folder).Histograms("units/h/layer 1")]
    assert steps == [0, 2, 5]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_switch(wanted: bool, tiny_config: TinyConfig, tmp_path: Path) -> None:
    raw = tiny_config("rnn")
    raw["eval"] |= {"insight": wanted}
    folder = train_with(raw, tmp_path)
    assert (folder / "tb" / "insight").exists() == wanted
