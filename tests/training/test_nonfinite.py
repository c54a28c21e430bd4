"""A loss or gradient that is not finite never changes the weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.cli.describe import describe_end
from charlm.errors import TrainingError
from charlm.evaluation import evaluate
from charlm.evaluation.scoring import text_to_score
from charlm.models import CharModel, State
from charlm.training.session import Session
from charlm.training.trainer import MAX_BAD_STEPS
from tests.training.helpers import (
    AfterEachStep,
    assert_same_run,
    go_on,
    make_config,
    metrics,
    new_run,
    resume,
    saved_model,
    saved_weights,
    start,
    train,
    weights_of,
)


def spoil_loss(ready: Session, when: Callable[[], bool], value: float = math.nan) -> None:
    """Make the loss of a training step NaN or infinite; evaluations stay as they are."""

    def hook(_model: CharModel, _arguments: object, output: tuple[Tensor, State]) -> Any:
        if torch.is_inference_mode_enabled() or not when():
            return None
        logits, state = output
        return logits.index_fill(-1, torch.arange(1, logits.shape[-1]), -value), state

    ready.model.register_forward_hook(hook)


def spoil_gradient(ready: Session, when: Callable[[], bool], value: float) -> None:
    """Make one number of one gradient NaN or infinite; the loss stays as it is."""

    def hook(gradient: Tensor) -> Tensor:
        return gradient.index_fill(0, torch.tensor([0]), value) if when() else gradient

    next(ready.model.parameters()).register_hook(hook)  # type: ignore[no-untyped-call]


def train_with_history(ready: Session) -> list[dict[str, Tensor]]:
    """Train; return the weights before the first step and after each."""
    history = [weights_of(ready.model)]
    watcher = AfterEachStep(lambda: history.append(weights_of(ready.model)))
    train(ready, observers=[watcher])
    return history


def moved(history: list[dict[str, Tensor]]) -> list[bool]:
    """Return for every step whether it changed the weights."""
    return [
        any(not torch.equal(before[name], after[name]) for name in before)
        for before, after in itertools.pairwise(history)
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_step_that_is_not_finite_is_skipped_and_counted_and_the_run_goes_on(
    kind: str, where: str, value: float, tiny_text: Path, tmp_path: Path
) -> None:
    bad = {0, 4, 5, 11}
    ready = start(make_config(tiny_text, kind), tmp_path, "cpu")
    progress = ready.run.progress
    if where == "loss":
        spoil_loss(ready, lambda: progress.step in bad, value)
    else:
        spoil_gradient(ready, lambda: progress.step in bad, value)
    assert moved(train_with_history(ready)) == [step not in bad for step in range(12)]
    meta = read_meta(ready.run.folder / LAST).progress
    assert (meta.step, meta.skipped_steps, meta.bad_in_a_row) == (12, 4, 1)
    assert meta.finished
    said = describe_end(ready.run, "finished", 0, tmp_path, "cpu")
    assert "skipped 4 steps whose loss or gradient was not finite" in said


def test_a_skipped_step_has_no_loss_to_record(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "lstm", "train.log_every=2")
    ready = start(config, tmp_path, "cpu")
    spoil_loss(ready, lambda: ready.run.progress.step in (0, 4, 5))
    train(ready)
    records = metrics(ready.run.folder, "train")
    assert [record["step"] for record in records] == [2, 4, 8, 10, 12]
    assert all(math.isfinite(record["loss"]) for record in records)
    assert 2 < records[0]["loss"] < 4  # of one step, not half of it


def test_after_a_skipped_step_every_stream_starts_from_a_fresh_state(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, "lstm", "train.grad_accum=2", "train.max_steps=6")
    ready = start(config, tmp_path, "cpu")
    spoil_loss(ready, lambda: ready.run.progress.step == 3)
    fresh: list[bool] = []

    def record_state(model: CharModel, ids_and_state: tuple[Tensor, State | None]) -> None:
        if model.training:
            fresh.append(ids_and_state[1] is None)

    ready.model.register_forward_pre_hook(record_state)
    train(ready)
    assert fresh == [True] * 2 + [False] * 6 + [True] * 2 + [False] * 2


def test_a_run_that_skipped_steps_resumes_exactly(tiny_text: Path, tmp_path: Path) -> None:
    def spoiled(ready: Session) -> Session:
        spoil_loss(ready, lambda: ready.run.progress.step in (0, 5, 6, 10))
        return ready

    config = make_config(tiny_text, "lstm", "train.optimizer.kind=muon")
    reference = spoiled(start(config, tmp_path / "never", "cpu"))
    train(reference)
    stopped = spoiled(start(config, tmp_path / "stopped", "cpu"))
    train(stopped, stop_at=7)
    folder = stopped.run.folder
    assert read_meta(folder / LAST).progress.bad_in_a_row == 2
    resumed = spoiled(resume(config, folder, "cpu"))
    train(resumed)
    assert_same_run(folder, reference.run.folder)
    assert resumed.run.progress.skipped_steps == 4


def test_several_bad_steps_in_a_row_stop_the_run_and_the_last_good_checkpoint_stays(
    tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, "lstm", "train.max_steps=50")
    ready = start(config, tmp_path, "cpu")
    spoil_loss(ready, lambda: ready.run.progress.step >= 7)
    with pytest.raises(TrainingError) as failure:
        train(ready)
    last = ready.run.folder / LAST
    for part in ("step 16", "no longer finite", f"{last} is the last good checkpoint"):
        assert part in str(failure.value)
    assert read_meta(last).progress.step == 5  # the save before the first bad step
    assert all(weight.isfinite().all() for weight in saved_weights(last).values())
    assert go_on(config, ready.run.folder) == "finished"  # no longer spoiled


def test_a_good_step_resets_the_count_of_bad_ones(tiny_text: Path, tmp_path: Path) -> None:
    steps = 2 * MAX_BAD_STEPS
    config = make_config(tiny_text, "lstm", f"train.max_steps={steps}")
    ready = start(config, tmp_path, "cpu")
    spoil_loss(ready, lambda: ready.run.progress.step != MAX_BAD_STEPS - 1)
    with pytest.raises(TrainingError, match=f"step {steps - 1}"):
        train(ready)


def test_a_run_that_has_diverged_does_not_save_itself_over_its_last_good_checkpoint(
    tiny_text: Path, tmp_path: Path
) -> None:
    sgd = ("train.optimizer.kind=sgd", "train.optimizer.lr=1e9", "train.optimizer.weight_decay=1e9")
    late = ("train.schedule.kind=constant", "eval.every=null", "eval.sample_every=null")
    config = make_config(tiny_text, "gpt", *sgd, *late, "train.save_every=1", "train.max_steps=50")
    with pytest.raises(TrainingError, match="is the last good checkpoint"):
        new_run(config, tmp_path)
    last = tmp_path / "run" / LAST
    meta = read_meta(last)
    model = saved_model(last)
    ids, _ = text_to_score(meta, (), "val", False)
    assert math.isfinite(evaluate.evaluate(model, ids, config.eval, 0).nats)


@pytest.mark.parametrize("kind", ["gru", "gpt"])
def test_fp16_skips_a_step_that_overflows_and_scales_less(
    kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, kind, "train.precision=fp16")
    ready = start(config, tmp_path, "cpu")
    progress = ready.run.progress
    spoil_gradient(ready, lambda: progress.step in (3, 4), math.inf)
    assert moved(train_with_history(ready)) == [step not in (3, 4) for step in range(12)]
    meta = read_meta(ready.run.folder / LAST).progress
    assert meta.skipped_steps == 2
    assert meta.scaler["scale"] == 65536 / 2 / 2


def test_fp16_unscales_before_it_clips_and_records(tiny_text: Path, tmp_path: Path) -> None:
    half, full = (
        new_run(make_config(tiny_text, "gpt", f"train.precision={p}"), tmp_path / p)
        for p in ("fp16", "fp32")
    )
    for ours, theirs in zip(metrics(half, "train")[:2], metrics(full, "train"), strict=False):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-2)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=0.05)
