"""Whole runs with charlm's own kernels: chosen, recorded, resumed exactly, or without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.read import read_meta
from charlm.config import Config
from charlm.errors import DeviceError
from charlm.kernels.variants import usable_variants
from charlm.models import build_model
from charlm.training.choose import choose_compute
from tests.kernels import VARIANTS, skip_without_compiler
from tests.training.helpers import (
    KINDS,
    assert_resumes,
    assert_same_run,
    go_on,
    make_config,
    new_run,
    plain_config,
    resume,
)

WITH_KERNELS = [kind for kind in KINDS if kind != "mlp"]
ON = ("train.kernels=on", "train.precision=auto", "train.threads=2")
LEVELS = {"amx": None, "avx512_bf16": "avx512_bf16", "avx512": "avx512", "avx2": "avx2"}


@pytest.fixture(params=[name for name in LEVELS if name in {it.name for it in VARIANTS}])
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The widest variant of a CPU that this process is held to."""
    skip_without_compiler()
    name: str = request.param
    if LEVELS[name]:
        monkeypatch.setenv("CHARLM_ISA", LEVELS[name] or "")
    return name


@pytest.fixture
def compiler() -> None:
    skip_without_compiler()


def kernel_of(folder: Path) -> str:
    return read_meta(folder / LAST).kernel


def check_resume(config: Config, tmp_path: Path) -> Meta:
    """Check that a run with a kernel resumes exactly; return the metadata of its checkpoint."""
    meta = read_meta(assert_resumes(config, tmp_path, 5) / LAST)
    assert (meta.kernel == "torch") == (config.model.kind == "mlp")
    return meta


@pytest.mark.parametrize("kind", WITH_KERNELS)
def test_a_run_resumed_is_the_run_never_stopped(
    variant: str, kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    meta = check_resume(make_config(tiny_text, kind, *ON, "train.precision=auto"), tmp_path)
    assert meta.kernel in {it.name for it in usable_variants()}
    assert (variant == "amx") == (meta.kernel == "amx")


@pytest.mark.parametrize("more", ["train.grad_accum=2", "train.optimizer.kind=muon"])
def test_pieces_of_a_batch_and_muon_resume_exactly(
    compiler: None, tiny_text: Path, tmp_path: Path, more: str
) -> None:
    meta = check_resume(make_config(tiny_text, "lstm", *ON, more), tmp_path)
    assert (meta.muon_kernel == "torch") == ("muon" not in more)


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_muon_uses_its_kernel_beside_layers_in_float32(
    compiler: None, kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    settings = ("train.kernels=on", "train.precision=fp32", "train.optimizer.kind=muon")
    meta = check_resume(make_config(tiny_text, kind, *settings), tmp_path)
    assert meta.precision == "fp32"
    assert (meta.kernel == "torch") == (kind == "mlp")  # which has no kernels for its layers
    assert meta.muon_kernel != "torch"


@pytest.mark.parametrize("kind", WITH_KERNELS)
def test_training_with_the_kernel_reaches_the_same_loss(
    variant: str, kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    def loss(name: str, *overrides: str) -> float:
        config = plain_config(tiny_text, kind, *overrides, "train.max_steps=60")
        progress = read_meta(new_run(config, tmp_path / name) / LAST).progress
        assert progress.best_loss is not None
        return progress.best_loss

    assert loss("ours", *ON) == pytest.approx(loss("theirs"), rel=0.01)
    assert kernel_of(tmp_path / "ours" / "run") != kernel_of(tmp_path / "theirs" / "run") == "torch"


def test_a_run_started_without_the_kernel_resumes_without_it(
    compiler: None, tiny_text: Path, tmp_path: Path
) -> None:
    off, auto = make_config(tiny_text), make_config(tiny_text, "lstm", "train.kernels=auto")
    whole = new_run(off, tmp_path / "whole")
    stopped = new_run(off, tmp_path / "stopped", stop_at=5)
    assert kernel_of(stopped) == "torch"
    go_on(auto, stopped)
    assert_same_run(stopped, whole)


def test_a_run_that_lost_the_kernel_reports_it_and_resumes(
    compiler: None, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tiny_text, "lstm", *ON)
    folder = new_run(config, tmp_path, stop_at=5)
    was = kernel_of(folder)
    auto = make_config(tiny_text, "lstm", *ON, "train.kernels=auto")
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "another"))
    ready = resume(auto, folder, "cpu")
    assert any(f"kernel was {was} and is torch" in notice for notice in ready.notices)
    assert go_on(auto, folder) == "finished"
    assert kernel_of(folder) == "torch"


def test_a_kernel_that_cannot_be_compiled_is_reported_and_not_used(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    config = make_config(tiny_text, "lstm", "train.kernels=auto", "train.optimizer.kind=muon")
    model = build_model(config.model, 30, seed=1)
    compute = choose_compute(config.train, model, "cpu")
    (notice,) = compute.notices
    assert "no-compiler" in notice
    assert "\n" not in notice
    assert "the results are as good" in notice
    assert (compute.kernel, compute.muon_kernel) == ("torch", "torch")
    asked = make_config(tiny_text, "lstm", "train.kernels=on").train
    with pytest.raises(DeviceError, match=r"no-compiler is .*; use train\.kernels=auto or off$"):
        choose_compute(asked, model, "cpu")


def test_a_precision_that_no_kernel_has_is_refused_where_kernels_are_asked_for(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_ISA", "avx2")
    config = make_config(tiny_text, "lstm", "train.kernels=on", "train.precision=bf16")
    with pytest.raises(DeviceError, match=r"^train\.kernels on: no kernel supports "):
        choose_compute(config.train, build_model(config.model, 30, seed=1), "cpu")
