"""A run that is stopped anywhere and resumed gives the same bits as a run never stopped."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.errors import DeviceError, TrainingError
from tests.training.helpers import (
    KINDS,
    NETWORKS,
    OPTIMIZERS,
    AfterEachStep,
    assert_resumes,
    assert_same_run,
    go_on,
    make_config,
    metrics,
    new_run,
    resume,
    same_tensors,
    saved_weights,
    script_losses,
    start,
    train,
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("kind", "batches"), NETWORKS)
def test_a_run_stopped_twice_and_resumed_is_the_run_never_stopped(
    kind: str, batches: str, optimizer: str, tiny_text: Path, tmp_path: Path
) -> None:
    settings = (f"train.optimizer.kind={optimizer}", f"train.batches={batches}")
    config = make_config(tiny_text, kind, *settings, "train.grad_accum=2", "train.log_every=5")
    assert_resumes(config, tmp_path, 4, 9)  # at step 4 an evaluation is due


@pytest.mark.parametrize("kind", ["gru", "lstm", "mlp"])
def test_weight_dropout_and_fresh_states_are_the_same_after_a_resume(
    kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    dropout = "model.dropout" if kind == "mlp" else "model.weight_dropout"
    config = make_config(tiny_text, kind, f"{dropout}=0.3", "train.fresh_state=0.5")
    assert_resumes(config, tmp_path, 5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential", "wsd"])
def test_a_run_stopped_before_every_step_is_the_run_never_stopped(
    schedule: str, tiny_text: Path, tmp_path: Path
) -> None:
    settings = (f"train.schedule.kind={schedule}", "train.schedule.warmup_steps=2")
    watch = ("eval.every=2", "eval.sample_every=2")
    config = make_config(tiny_text, "lstm", *settings, *watch, "train.max_steps=6")
    assert_resumes(config, tmp_path, *range(7))  # the last stop is in the last evaluation


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_resuming_in_half_precision_is_exact(
    precision: str, kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, kind, f"train.precision={precision}")
    try:
        assert_resumes(config, tmp_path, 7)
    except DeviceError as error:  # PyTorch has no fp16 LSTM on a CPU, and bf16 only on some
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_limit_continues_a_finished_run(
    kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    settings = ("train.schedule.kind=constant", "train.optimizer.kind=muon", "eval.every=5")
    short, long = (
        make_config(tiny_text, kind, *settings, "eval.sample_every=5", f"train.max_steps={steps}")
        for steps in (10, 20)
    )
    reference = new_run(long, tmp_path / "at once")
    folder = new_run(short, tmp_path / "in two")
    assert go_on(long, folder) == "finished"
    assert_same_run(folder, reference)


def test_a_higher_patience_continues_a_run_that_had_lost_it(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_losses(monkeypatch, 2 * [3.0, 3.1, 3.2, 2.9, 3.0, 3.3])  # of two runs
    eager, calm = (
        make_config(tiny_text, "gru", "eval.every=2", f"train.patience={patience}")
        for patience in (2, 3)
    )
    reference = new_run(calm, tmp_path / "calm")
    hasty = start(eager, tmp_path / "eager", "cpu")
    assert train(hasty) == "patience"
    assert hasty.run.progress.step == 6
    assert go_on(calm, hasty.run.folder) == "finished"
    assert_same_run(hasty.run.folder, reference)


def test_a_stop_in_the_middle_of_an_evaluation_changes_nothing(
    tiny_text: Path, tmp_path: Path
) -> None:
    long = ("data.val_fraction=0.9", "eval.max_chars=null")  # an evaluation takes three batches
    config = make_config(tiny_text, "lstm", "train.max_steps=8", *long)
    reference = new_run(config, tmp_path / "never")
    ready = start(config, tmp_path / "stopped", "cpu")
    asked: list[int] = []

    def in_the_third_batch() -> bool:
        asked.append(ready.run.progress.step)
        return asked.count(4) >= 3

    assert ready.trainer([], in_the_third_batch).train() == "stopped"
    assert ready.run.progress.step == 4
    assert [record["step"] for record in metrics(ready.run.folder, "val")] == []
    assert go_on(config, ready.run.folder) == "finished"
    assert_same_run(ready.run.folder, reference)


def test_a_run_that_crashed_between_saves_resumes_exactly(tiny_text: Path, tmp_path: Path) -> None:
    class PowerCutError(Exception):
        pass

    def crash() -> None:
        if ready.run.progress.step == 9:
            raise PowerCutError

    config = make_config(tiny_text, "lstm", "train.save_every=6")
    reference = new_run(config, tmp_path / "never")
    ready = start(config, tmp_path / "cut", "cpu")
    with pytest.raises(PowerCutError):
        train(ready, observers=[AfterEachStep(crash)])
    folder = ready.run.folder
    assert read_meta(folder / LAST).progress.step == 6
    assert metrics(folder)[-1]["step"] == 9  # after the save, so it must be cut off
    go_on(config, folder)
    assert_same_run(folder, reference)


def test_resuming_a_finished_run_changes_nothing(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "lstm")
    folder = new_run(config, tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    assert go_on(config, folder) == "finished"
    assert_same_run(folder, tmp_path / "copy")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_config_gives_the_same_run(kind: str, tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, kind)
    first = new_run(config, tmp_path / "first")
    torch.manual_seed(5)
    assert_same_run(new_run(config, tmp_path / "second"), first)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_another_seed_gives_another_run(kind: str, tiny_text: Path, tmp_path: Path) -> None:
    folders = [
        new_run(make_config(tiny_text, kind, f"train.seed={seed}"), tmp_path / str(seed))
        for seed in (1, 2)
    ]
    one, other = (saved_weights(folder / LAST) for folder in folders)
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].ndim > 1)


@pytest.fixture(scope="module")
def unwatched(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of each kind with the usual config, trained once."""
    out = tmp_path_factory.mktemp("unwatched")
    return functools.cache(lambda kind: new_run(make_config(tiny_text, kind), out / kind))


@pytest.mark.parametrize(
    "setting",
    [
        "eval.every=1",
        "eval.every=null",
        "eval.protocol=windows",
        "eval.sample_every=1",
        "eval.sample_every=null",
        "sample.length=0",
        "train.save_every=1",
        "train.keep_every=1",
        "train.log_every=5",
    ],
)
@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_evaluating_sampling_and_saving_change_no_bits_of_a_run(
    kind: str, setting: str, unwatched: Callable[[str], Path], tiny_text: Path, tmp_path: Path
) -> None:
    watched = new_run(make_config(tiny_text, kind, setting, "eval.n_windows=20"), tmp_path)
    assert same_tensors(watched / LAST, unwatched(kind) / LAST)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_training_does_not_change_the_global_generator(
    kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, kind)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    folder = new_run(config, tmp_path, stop_at=5)
    assert torch.equal(torch.get_rng_state(), before)
    train(resume(config, folder, "cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_failed_run_does_not_change_the_global_generator(tiny_text: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise TrainingError("enough")

    before = torch.get_rng_state()
    with pytest.raises(TrainingError, match="enough"):
        new_run(make_config(tiny_text), tmp_path, observers=[AfterEachStep(fail)])
    assert torch.equal(torch.get_rng_state(), before)
