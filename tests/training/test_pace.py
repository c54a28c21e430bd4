"""When a run evaluates, samples and ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from charlm.checkpoint.format import LAST, Progress
from charlm.checkpoint.read import read_meta
from charlm.config import EvalConfig
from charlm.data.corpus import TextIds
from charlm.observer import Observer
from charlm.training import validation
from charlm.units import Likelihood
from tests.training.helpers import (
    make_config,
    metrics,
    new_run,
    plain_config,
    resume,
    script_losses,
    start,
    train,
)

BY_CLOCK = ("train.max_steps=null", "train.schedule.kind=cosine", "train.schedule.warmup_steps=0")
AUTO = ("eval.every=auto", "eval.sample_every=auto", "eval.max_chars=auto")


class Clock(Observer):
    """Time that passes only where a test says so: `step_s` seconds after each step."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.now, self._step_s = 0.0, step_s
        self.notices: list[str] = []

    def __call__(self) -> float:
        return self.now

    def progress(self, fraction: float) -> None:  # noqa: ARG002
        self.now += self._step_s

    def notice(self, text: str) -> None:
        self.notices.append(text)


def slow_evaluation(monkeypatch: pytest.MonkeyPatch, clock: Clock, seconds: float) -> list[int]:
    """Let each evaluation take this time. Return the lengths of the texts that will be scored."""
    lengths: list[int] = []

    def evaluate(_model: object, ids: TextIds, *_: object, **__: object) -> Likelihood:
        clock.now += seconds
        lengths.append(len(ids))
        return Likelihood(20.0, 10)

    monkeypatch.setattr(validation, "evaluate", evaluate)
    return lengths


def steps(folder: Path, split: str) -> list[int]:
    return [record["step"] for record in metrics(folder, split)]


def sampled(folder: Path) -> list[int]:
    lines = (folder / "samples.txt").read_text().splitlines()
    return [int(line.split()[-1]) for line in lines if line.startswith("--- step ")]


# --- the end ----------------------------------------------------------------------------------


def test_a_time_limit_ends_the_run_by_the_clock_and_its_learning_rate_follows_it(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, "rnn", *BY_CLOCK, "train.max_seconds=8", "eval.every=null")
    clock = Clock()
    folder = new_run(config, tmp_path, observers=[clock], clock=clock)
    progress = read_meta(folder / LAST).progress
    assert (progress.step, progress.wall_s, progress.finished) == (8, 8.0, True)
    rates = [record["lr"] for record in metrics(folder, "train")]
    assert rates[4] == pytest.approx(rates[0] * (0.1 + 0.9 / 2))
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(("step_s", "evaluation_s"), [(1.0, 2.5), (0.1, 0.5)])
def test_a_time_limit_includes_the_evaluations_and_the_last_one(
    step_s: float,
    evaluation_s: float,
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(step_s)
    scored = slow_evaluation(monkeypatch, clock, evaluation_s)
    config = make_config(tiny_text, "rnn", *BY_CLOCK, *AUTO, "train.max_seconds=40")
    new_run(config, tmp_path, observers=[clock], clock=clock)
    assert 40 - step_s - evaluation_s <= clock.now <= 40 + step_s
    assert 9 <= len(scored) <= 11


def test_what_came_before_the_first_step_counts(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "rnn", *BY_CLOCK, "train.max_seconds=8", "eval.every=null")
    clock = Clock()
    ready = start(config, tmp_path)
    ready.trainer([clock], lambda: False, None, clock, started=-5.0).train()
    assert ready.run.progress.step == 3


def test_a_run_whose_start_took_all_its_time_takes_one_step(
    tiny_text: Path, tmp_path: Path
) -> None:
    settings = (*BY_CLOCK, "eval.every=null", "train.max_seconds=")
    clock = Clock()
    ready = start(make_config(tiny_text, "rnn", *settings[:-1], f"{settings[-1]}3"), tmp_path)
    ready.trainer([clock], lambda: False, None, clock, started=-50.0).train()
    assert ready.run.progress.step == 1
    longer = make_config(tiny_text, "rnn", *settings[:-1], f"{settings[-1]}60")
    resumed = resume(longer, ready.run.folder)
    resumed.trainer([clock], lambda: False, None, clock, started=clock.now - 50.0).train()
    assert resumed.run.progress.step == 2


def test_a_resumed_run_has_the_time_that_is_left(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "rnn", *BY_CLOCK, "train.max_seconds=8", "eval.every=null")
    clock = Clock()
    folder = new_run(config, tmp_path, stop_at=5, observers=[clock], clock=clock)
    clock.now += 1000  # before somebody resumes it
    for expected in (8, 8):  # a run that is over stays so
        ready = resume(config, folder)
        train(ready, observers=[clock], clock=clock)
        assert ready.run.progress.step == expected


# --- evaluations and samples --------------------------------------------------------------------


def test_auto_evaluates_ten_times_and_samples_five_times(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "rnn", *AUTO, "train.max_steps=70")
    folder = new_run(config, tmp_path)
    assert steps(folder, "val") == list(range(7, 71, 7))
    assert sampled(folder) == list(range(14, 71, 14))


def test_a_run_with_fewer_steps_evaluates_after_each(tiny_text: Path, tmp_path: Path) -> None:
    folder = new_run(make_config(tiny_text, "rnn", *AUTO, "train.max_steps=3"), tmp_path)
    assert steps(folder, "val") == sampled(folder) == [1, 2, 3]


def test_no_evaluation_comes_just_before_the_last_one(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "rnn", *BY_CLOCK, *AUTO, "train.max_seconds=100")
    clock = Clock(step_s=12.0)  # after 8 steps 96 % is done, after 9 the run is over
    folder = new_run(config, tmp_path, observers=[clock], clock=clock)
    assert steps(folder, "val") == [1, 2, 3, 4, 5, 6, 7, 9]
    assert sampled(folder) == [2, 4, 5, 7, 9]


def test_a_stopped_run_evaluates_and_samples_at_the_same_steps(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, "rnn", *AUTO, "train.max_steps=33")
    whole = new_run(config, tmp_path / "whole")
    for stop_at in (4, 7, 14, 32):
        folder = new_run(config, tmp_path / str(stop_at), stop_at=stop_at)
        train(resume(config, folder))
        assert steps(folder, "val") == steps(whole, "val")
        assert sampled(folder) == sampled(whole)


def test_a_longer_limit_continues_with_evaluations_of_the_same_text(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = slow_evaluation(monkeypatch, Clock(), 0)
    config = make_config(tiny_text, "rnn", *AUTO, "train.max_steps=20")
    folder = new_run(config, tmp_path)
    longer = make_config(tiny_text, "rnn", *AUTO, "train.max_steps=40")
    train(resume(longer, folder))
    assert steps(folder, "val") == [*range(2, 21, 2), *range(24, 41, 4)]
    assert len(set(scored)) == 1


def test_an_evaluation_reads_a_small_share_of_what_the_run_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh\n" * 100_000)
    scored = slow_evaluation(monkeypatch, Clock(), 0)
    config = make_config(text, "rnn", *AUTO, "train.batch_size=64", "train.max_steps=300")
    ready = start(config, tmp_path)
    train(ready)
    trained_on = 300 * 64 * config.train.seq_len
    assert set(scored) == {max(5000, round(trained_on / 100))}
    assert len(scored) == 10
    for text_length, expected in ((None, 90_000), (500, 500)):  # as the user says
        setting = "eval.max_chars=" + ("null" if text_length is None else str(text_length))
        scored.clear()
        other = make_config(text, "rnn", setting, "train.max_steps=2", "eval.every=1")
        new_run(other, tmp_path / str(text_length))
        assert set(scored) == {expected}


def test_an_evaluation_of_windows_reads_fewer_of_them_from_the_whole_split(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def evaluate(_model: object, ids: TextIds, config: EvalConfig, *_: object, **__: object) -> Any:
        seen.append((len(ids), config.n_windows))
        return Likelihood(20.0, 10)

    monkeypatch.setattr(validation, "evaluate", evaluate)
    windows = ("eval.protocol=windows", "eval.window=16", "eval.n_windows=2000")
    config = make_config(tiny_text, "rnn", *AUTO, *windows, "train.max_steps=20")
    ready = start(config, tmp_path)
    train(ready)
    assert set(seen) == {(len(ready.run.corpus.split("val")), math.ceil(5000 / 16))}


# --- overfitting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "noticed"),
    [
        ([2.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8], [2, 6]),
        ([2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 1.4, 1.3, 1.4, 1.5], None),  # for less than a third
        ([2.0, 1.0, 1.001, 1.002, 1.001, 1.002, 1.0, 1.001, 1.002, 1.003], None),  # hardly
    ],
)
def test_overfitting_is_noticed_once(
    losses: list[float],
    noticed: list[int] | None,
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script_losses(monkeypatch, losses)
    clock = Clock()
    config = make_config(tiny_text, "rnn", "eval.every=1", "train.max_steps=10")
    new_run(config, tmp_path, observers=[clock])
    found = [line for line in clock.notices if "overfits" in line]
    assert len(found) == (noticed is not None)
    if noticed:
        best, at = noticed
        assert f"step {at}: the validation loss has risen since step {best}" in found[0]


@pytest.mark.parametrize(
    ("kind", "setting", "advice"),
    [
        ("rnn", "output_dropout=0", "try a higher dropout (--dropout 0.3), a smaller"),
        ("lstm", "output_dropout=0.3", "try a higher dropout (--dropout 0.5), a smaller"),
        ("gpt", "dropout=0.4", "try a higher dropout (--dropout 0.5), a smaller"),
        ("lstm", "output_dropout=0.5", "try a smaller model or fewer steps"),
    ],
)
def test_against_overfitting_only_a_higher_dropout_is_advised(
    kind: str, setting: str, advice: str, tiny_text: Path
) -> None:
    model = plain_config(tiny_text, kind, f"model.{setting}").model
    progress = Progress(step=100, best_step=10, best_loss=1.0)
    assert advice in validation.overfitting(progress, 2.0, 1.0, model)
