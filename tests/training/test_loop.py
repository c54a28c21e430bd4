"""When a run ends, what it does between steps, and when it saves."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import read_meta
from charlm.cli.describe import describe_end
from charlm.config import Config
from charlm.evaluation import evaluate
from charlm.evaluation.scoring import text_to_score
from charlm.observer import Observer
from tests.training.helpers import (
    AfterEachStep,
    assert_same_run,
    make_config,
    metrics,
    new_run,
    saved_model,
    saved_weights,
    script_losses,
    start,
    train,
    weights_of,
)


def ticking(seconds: float) -> Callable[[], float]:
    """Return a clock that advances by `seconds` at every call."""
    return itertools.count(step=seconds).__next__


# --- the end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "stops_at", "best_step"),
    [
        ([2.0, 2.1, 2.2], 6, 2),
        ([2.0, 2.1, 1.9, 2.0, 1.95], 10, 6),
        ([2.0, 2.0, 2.0], 6, 2),  # equal is not better
    ],
)
def test_a_run_without_progress_loses_patience_and_this_is_reported(
    losses: list[float],
    stops_at: int,
    best_step: int,
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script_losses(monkeypatch, losses)
    config = make_config(
        tiny_text, "rnn", "train.patience=2", "eval.every=2", "train.max_steps=100"
    )
    ready = start(config, tmp_path, "cpu")
    assert train(ready) == "patience"
    progress = read_meta(ready.run.folder / LAST).progress
    assert (progress.step, progress.best_step) == (stops_at, best_step)
    assert progress.best_loss == min(losses)
    said = describe_end(ready.run, "patience", 0, tmp_path, "cpu")
    assert "no improvement in 2 evaluations" in said[0]


def test_a_run_by_epochs_reads_the_text_that_number_of_times(
    tiny_text: Path, tmp_path: Path
) -> None:
    settings = ("train.max_steps=null", "train.max_epochs=0.02")
    ready = start(make_config(tiny_text, "rnn", *settings), tmp_path, "cpu")
    chars = len(ready.run.corpus.split("train"))
    train(ready)
    seen = metrics(ready.run.folder)[-1]["chars_seen"]
    assert 0.02 * chars <= seen < 0.02 * chars + 32


# --- between steps ---------------------------------------------------------------------------


def test_best_moves_only_when_the_loss_improves(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_losses(monkeypatch, [2.0, 2.5, 1.5, 1.5, 1.6, 1.7])
    weights: dict[int, dict[str, torch.Tensor]] = {}

    def keep() -> None:
        weights[ready.run.progress.step] = weights_of(ready.model)

    ready = start(make_config(tiny_text, "gru", "eval.every=2"), tmp_path, "cpu")
    train(ready, observers=[AfterEachStep(keep)])
    best = read_meta(ready.run.folder / BEST).progress
    assert (best.step, best.best_step, best.best_loss) == (6, 6, 1.5)
    saved = saved_weights(ready.run.folder / BEST)
    assert all(torch.equal(saved[name], weights[6][name]) for name in saved)
    assert not torch.equal(saved["head.weight"], weights[12]["head.weight"])
    last = read_meta(ready.run.folder / LAST).progress
    assert (last.step, last.best_step, last.evals_since_best) == (12, 6, 3)


def test_a_validation_loss_that_is_not_finite_is_not_the_best(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_losses(monkeypatch, [math.nan, 2.0, math.nan, 1.5, math.inf, 1.7])
    folder = new_run(make_config(tiny_text, "gru", "eval.every=2"), tmp_path)
    best = read_meta(folder / BEST).progress
    assert (best.step, best.best_loss) == (8, 1.5)
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)  # NaN is not valid JSON


@pytest.mark.parametrize("protocol", [(), ("eval.protocol=windows", "eval.n_windows=20")])
@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_validation_record_is_the_evaluation_of_the_first_max_chars(
    kind: str, protocol: tuple[str, ...], tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, kind, *protocol, "eval.max_chars=150")
    folder = new_run(config, tmp_path)
    assert [record["step"] for record in metrics(folder, "val")] == [4, 8, 12]
    meta = read_meta(folder / LAST)
    model = saved_model(folder / LAST)
    ids, _ = text_to_score(meta, (), "val", False)
    score = evaluate.evaluate(model, ids[:150], config.eval, config.train.seed)
    assert metrics(folder, "val")[-1]["loss"] == pytest.approx(score.nats_per_char, rel=1e-12)
    whole = evaluate.evaluate(model, ids, config.eval, config.train.seed)
    assert whole.nats_per_char != pytest.approx(score.nats_per_char, rel=1e-5)


def test_a_run_ends_with_an_evaluation_and_a_sample(tiny_text: Path, tmp_path: Path) -> None:
    folder = new_run(make_config(tiny_text, "rnn", "train.max_steps=11"), tmp_path)
    assert [record["step"] for record in metrics(folder, "val")] == [4, 8, 11]
    samples = (folder / "samples.txt").read_text(encoding="utf-8")
    assert [line for line in samples.splitlines() if line.startswith("--- ")] == [
        "--- step 6",
        "--- step 11",
    ]


def test_a_run_without_validation_text_is_trained(tiny_text: Path, tmp_path: Path) -> None:
    folder = new_run(make_config(tiny_text, "rnn", "data.val_fraction=0"), tmp_path)
    assert metrics(folder, "val") == []
    assert not (folder / BEST).exists()
    assert read_meta(folder / LAST).progress.finished


# --- saving ----------------------------------------------------------------------------------


def steps_saved(
    config: Config, out: Path, clock: Callable[[], float] = time.monotonic
) -> list[int]:
    """Train; return the steps at which `last` was saved, with the first and the last step."""

    class Saves(Observer):
        def saved(self, path: Path) -> None:
            if path.name == LAST:
                steps.append(ready.run.progress.step)

    steps: list[int] = []
    ready = start(config, out, "cpu")
    train(ready, observers=[Saves()], clock=clock)
    return steps


def test_last_is_saved_at_intervals_of_steps(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "rnn", "train.save_every=5", "train.save_minutes=null")
    assert steps_saved(config, tmp_path) == [0, 5, 10, 12]


@pytest.mark.parametrize("kept", ["eval.every=null", "eval.every=1", "train.keep_every=1"])
def test_last_is_saved_at_intervals_of_minutes_even_if_other_files_are_saved(
    kept: str, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_losses(monkeypatch, [1 / step for step in range(1, 99)])  # best is saved each time
    timed = ("train.save_every=null", "train.save_minutes=4", "train.max_steps=24")
    config = make_config(tiny_text, "rnn", "eval.every=null", *timed, kept)
    saved = steps_saved(config, tmp_path, ticking(20.0))  # read three times a step or more
    gaps = [later - earlier for earlier, later in itertools.pairwise(saved)]
    assert max(gaps) <= 5


def test_the_newest_kept_checkpoints_stay_and_older_ones_go(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, "rnn", "train.keep_every=2", "train.keep_last=3")
    ready = start(config, tmp_path, "cpu")
    seen: list[list[int]] = []

    def list_kept() -> None:
        names = sorted(path.name for path in ready.run.folder.glob("step-*"))
        seen.append([int(name.split("-")[1].split(".")[0]) for name in names])

    train(ready, observers=[AfterEachStep(list_kept)])
    list_kept()
    assert seen[:4] == [[], [], [2], [2]]
    assert seen[-3:] == [[6, 8, 10], [6, 8, 10], [8, 10, 12]]
    for step in seen[-1]:
        meta = read_meta(ready.run.folder / f"step-{step:08d}.safetensors")
        assert meta.progress.step == step


def test_a_run_killed_before_its_first_save_can_be_started_again(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text)
    start(config, tmp_path / "killed", "cpu")  # leaves an empty folder
    folder = new_run(config, tmp_path / "killed")
    assert_same_run(folder, new_run(config, tmp_path / "never"))
