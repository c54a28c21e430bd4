"""A whole run with our own LSTM kernel: chosen, recorded, resumed to the bit, and done without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.read import read_meta
from charlm.config import Config
from charlm.kernels.build import NoKernelError
from charlm.kernels.lstm import LSTMKernel
from charlm.training import choose, session
from tests.kernels import loaded
from tests.training.helpers import assert_same_run, go_on, make_config, new_run, plain_config

LARGE = ("model.hidden_size=64", "train.batch_size=32", "train.precision=bf16")
AUTO = (*LARGE, "train.compile=auto")


@pytest.fixture
def kernel() -> None:
    loaded(LSTMKernel)


def kernel_of(folder: Path) -> str:
    return read_meta(folder / LAST).kernel


def check_resume(config: Config, tmp_path: Path) -> Meta:
    """A run with a kernel, stopped and resumed, is the run never stopped; its last checkpoint."""
    whole = new_run(config, tmp_path / "whole")
    stopped = new_run(config, tmp_path / "stopped", stop_at=5)
    assert kernel_of(whole) == "amx"
    assert go_on(config, stopped) == "finished"
    assert_same_run(stopped, whole)
    return read_meta(whole / LAST)


@pytest.mark.parametrize("more", [(), ("train.grad_accum=2",), ("train.optimizer.kind=muon",)])
def test_a_run_resumed_is_the_run_never_stopped(
    kernel: None, tiny_text: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    check_resume(make_config(tiny_text, "lstm", *AUTO, *more), tmp_path)


def test_a_gpt_is_in_bfloat16_where_the_kernel_can_do_it(
    kernel: None, tiny_text: Path, tmp_path: Path
) -> None:
    size = ("model.n_embd=64", "model.n_head=2", "model.context=32", "model.dropout=0")
    config = make_config(tiny_text, "gpt", *size, "train.compile=auto", "train.precision=auto")
    assert check_resume(config, tmp_path).precision == "bf16"


@pytest.mark.parametrize("kind", ["gpt", "gru"])
def test_muon_has_the_kernel_in_every_model_and_precision(
    kernel: None, tiny_text: Path, tmp_path: Path, kind: str
) -> None:
    width = "model.n_embd=64" if kind == "gpt" else "model.hidden_size=64"
    muon = (width, "train.compile=auto", "train.optimizer.kind=muon")
    check_resume(make_config(tiny_text, kind, *muon), tmp_path)


def test_training_learns_what_it_does_without_the_kernel(
    kernel: None, tiny_text: Path, tmp_path: Path
) -> None:
    def loss(name: str, *overrides: str) -> float:
        config = plain_config(tiny_text, "lstm", *LARGE, *overrides, "train.max_steps=60")
        progress = read_meta(new_run(config, tmp_path / name) / LAST).progress
        assert progress.best_loss is not None
        return progress.best_loss

    ours, theirs = loss("ours", "train.compile=auto"), loss("theirs", "train.compile=off")
    assert ours == pytest.approx(theirs, rel=0.01)
    assert ours != theirs


def config_for(text: Path, *overrides: str) -> Config:
    return make_config(text, "lstm", *AUTO, *overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.compile=off",),
        ("train.precision=fp32",),
        ("train.batch_size=7",),
        ("train.grad_accum=8",),  # pieces of 4
        ("model.hidden_size=32",),
        ("model.kind=gru",),
    ],
)
def test_pytorch_computes_what_the_kernel_does_not_fit(
    kernel: None, tiny_text: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    ready = session.start(config_for(tiny_text, *overrides), tmp_path, "cpu")
    assert ready.run.compute.kernel == "torch"
    assert not ready.run.compute.notices


def test_a_run_begun_without_the_kernel_goes_on_without_it(
    kernel: None, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(choose, "cpu_has_amx", lambda: False)
        whole = new_run(config_for(tiny_text), tmp_path / "whole")
        stopped = new_run(config_for(tiny_text), tmp_path / "stopped", stop_at=5)
    assert kernel_of(stopped) == "torch"
    go_on(config_for(tiny_text), stopped)
    assert_same_run(stopped, whole)


def test_a_run_that_lost_the_kernel_says_so_and_goes_on(
    kernel: None, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tiny_text)
    folder = new_run(config, tmp_path, stop_at=5)
    monkeypatch.setattr(choose, "cpu_has_amx", lambda: False)
    ready = session.resume(config, folder, "cpu")
    assert any("kernel was amx and is torch" in notice for notice in ready.notices)
    assert go_on(config, folder) == "finished"
    assert kernel_of(folder) == "torch"


def test_a_cpu_that_could_and_a_kernel_that_cannot_be_made_are_told_of(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise NoKernelError("there is no C compiler")

    monkeypatch.setattr(choose, "cpu_has_amx", lambda: True)
    monkeypatch.setattr(LSTMKernel, "__init__", refuse)
    ready = session.start(config_for(tiny_text, "train.precision=auto"), tmp_path, "cpu")
    (notice,) = (each for each in ready.notices if "C compiler" in each)
    assert "the result is as good" in notice
    assert ready.run.compute.kernel == "torch"
