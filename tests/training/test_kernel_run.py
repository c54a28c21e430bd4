"""Whole runs with charlm's own kernels: chosen, recorded, resumed exactly, or without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.read import read_meta
from charlm.config import Config
from charlm.kernels.fused import Kernels
from charlm.kernels.lstm import LSTMKernel
from charlm.models import build_model
from charlm.training.choose import choose_compute
from tests.kernels import loaded
from tests.training.helpers import (
    assert_same_run,
    go_on,
    make_config,
    new_run,
    plain_config,
    resume,
    start,
)

LARGE = ("model.hidden_size=64", "train.batch_size=32", "train.precision=bf16")
AUTO = (*LARGE, "train.compile=auto")


@pytest.fixture
def kernel() -> None:
    loaded(LSTMKernel)


def kernel_of(folder: Path) -> str:
    return read_meta(folder / LAST).kernel


def check_resume(config: Config, tmp_path: Path) -> Meta:
    """Check that a run with a kernel resumes exactly; return the metadata of its checkpoint."""
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


def test_a_gpt_that_the_kernel_supports_is_trained_in_bfloat16(
    kernel: None, tiny_text: Path, tmp_path: Path
) -> None:
    size = ("model.n_embd=64", "model.n_head=2", "model.context=32", "model.dropout=0")
    config = make_config(tiny_text, "gpt", *size, "train.compile=auto", "train.precision=auto")
    assert check_resume(config, tmp_path).precision == "bf16"


@pytest.mark.parametrize("kind", ["gpt", "gru"])
def test_muon_uses_its_kernel_for_other_models_and_in_float32(
    kernel: None, tiny_text: Path, tmp_path: Path, kind: str
) -> None:
    width = "model.n_embd=64" if kind == "gpt" else "model.hidden_size=64"
    muon = (width, "train.compile=auto", "train.optimizer.kind=muon")
    check_resume(make_config(tiny_text, kind, *muon), tmp_path)


def test_training_with_the_kernel_reaches_the_same_loss(
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
        ("train.grad_accum=8",),  # 4 sequences in a piece
        ("model.hidden_size=32",),
        ("model.kind=gru",),
    ],
)
def test_pytorch_computes_what_the_kernel_does_not_support(
    kernel: None, tiny_text: Path, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    ready = start(config_for(tiny_text, *overrides), tmp_path, "cpu")
    assert ready.run.compute.kernel == "torch"
    assert not ready.run.compute.notices


def test_a_run_started_without_the_kernel_resumes_without_it(
    kernel: None, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("CHARLM_ISA", "avx512")  # a CPU without AMX
        whole = new_run(config_for(tiny_text), tmp_path / "whole")
        stopped = new_run(config_for(tiny_text), tmp_path / "stopped", stop_at=5)
    assert kernel_of(stopped) == "torch"
    go_on(config_for(tiny_text), stopped)
    assert_same_run(stopped, whole)


def test_a_run_that_lost_the_kernel_reports_it_and_resumes(
    kernel: None, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tiny_text)
    folder = new_run(config, tmp_path, stop_at=5)
    monkeypatch.setenv("CHARLM_ISA", "avx512")
    ready = resume(config, folder, "cpu")
    assert any("kernel was amx and is torch" in notice for notice in ready.notices)
    assert go_on(config, folder) == "finished"
    assert kernel_of(folder) == "torch"


def test_a_kernel_that_cannot_be_compiled_is_reported_and_not_used(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithAMX(Kernels):
        available = staticmethod(lambda: True)

    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    config = config_for(tiny_text, "train.precision=auto")
    model = build_model(config.model, 30, seed=1)
    compute = choose_compute(config.train, model, "cpu", kernels=WithAMX)
    (notice,) = compute.notices
    assert "no-compiler" in notice
    assert "\n" not in notice
    assert "the results are as good" in notice
    assert compute.kernel == "torch"
