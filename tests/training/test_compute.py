"""Threads, device, precision and torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.devices import choose_device
from charlm.errors import DeviceError
from charlm.models import build_model
from charlm.observer import Observer
from charlm.training import choose, session
from charlm.training.choose import choose_compute
from tests.conftest import python
from tests.training.helpers import assert_resumes, assert_same_run, make_config, new_run, resume


class Notices(Observer):
    """Collects the notices of a run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def notice(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_if_compiling_fails_one_notice_says_so_and_the_run_is_the_uncompiled_one(
    kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    notices, config = Notices(), make_config(tiny_text, kind, "train.compile=on")
    with torch.compiler.set_stance("fail_on_recompile"):  # the first compilation fails too
        tried = new_run(config, tmp_path / "tried", observers=[notices])
    (line,) = notices.lines
    assert line.startswith("torch.compile failed, training goes on without it: ")
    assert "\n" not in line
    assert_same_run(tried, new_run(make_config(tiny_text, kind), tmp_path / "off"))


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_compiled_model_that_is_wrong_is_not_used(
    kind: str, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiler(forward: Callable[..., Any]) -> Callable[..., Any]:
        def compiled(ids: torch.Tensor, state: object, **options: bool) -> Any:
            logits, after = forward(ids, state, **options)
            return 3 * logits.flip(1), after

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    notices = Notices()
    config = make_config(tiny_text, kind, "model.dropout=0", "train.compile=on")
    config = config.model_copy(update={"model": plain(config.model)})
    tried = new_run(config, tmp_path / "tried", observers=[notices])
    (line,) = notices.lines
    assert line.startswith("torch.compile gives wrong numbers, training goes on without it: loss ")
    off = config.model_copy(update={"train": config.train.model_copy(update={"compile": "off"})})
    assert_same_run(tried, new_run(off, tmp_path / "off"))


def plain(model: Any) -> Any:
    """The settings of a model without dropout."""
    dropouts = [name for name in type(model).model_fields if name.endswith("dropout")]
    return model.model_copy(update=dict.fromkeys(dropouts, 0.0))


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_compiled_model_is_trained_and_trying_it_changes_nothing(
    kind: str, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []

    def compiler(forward: Callable[..., object]) -> Callable[..., object]:
        def compiled(ids: torch.Tensor, state: object, **options: bool) -> object:
            calls.append(getattr(forward, "training", True))
            return forward(ids, state, **options)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    notices = Notices()
    folder = new_run(
        make_config(tiny_text, kind, "train.compile=on"), tmp_path / "on", observers=[notices]
    )
    trials = 1 if kind == "gpt" else 3  # two more for a carried state
    assert calls == [True] * (trials + 12)
    assert notices.lines == []
    assert_same_run(folder, new_run(make_config(tiny_text, kind), tmp_path / "off"))


@pytest.mark.parametrize("setting", ["off", "auto"])
def test_nothing_is_compiled_on_a_cpu_unless_asked_for(
    setting: str, tiny_text: Path, tmp_path: Path
) -> None:
    notices, config = Notices(), make_config(tiny_text, "gpt", f"train.compile={setting}")
    with torch.compiler.set_stance("fail_on_recompile"):  # compiling fails, and that is reported
        new_run(config, tmp_path, observers=[notices])
    assert notices.lines == []


def test_a_resumed_compiled_run_is_the_run_never_stopped(tiny_text: Path, tmp_path: Path) -> None:
    config = make_config(tiny_text, "lstm", "train.compile=on")
    with torch.compiler.set_stance("force_eager"):  # torch.compile without its compiler
        assert_resumes(config, tmp_path, 5)


# --- device, precision, threads --------------------------------------------------------------


@pytest.mark.parametrize("name", ["nothing", "meta", "cuda:99", "cpu:x"])
def test_a_missing_device_is_named_in_the_error(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device={name}"):
        choose_device(name)


def test_cuda_is_refused_without_a_gpu() -> None:
    code = "from charlm.devices import choose_device; choose_device('cuda')"
    result = python("-c", code, env={"CUDA_VISIBLE_DEVICES": ""})
    assert result.stderr.splitlines()[-1] == (
        "charlm.errors.DeviceError: device=cuda: PyTorch finds no CUDA GPU; use device=auto or cpu"
    )


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_cuda_before_mps_before_cpu(
    cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    before = torch.get_float32_matmul_precision()
    try:
        assert choose_device("auto").type == chosen
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("kind", "has_bf16", "chosen"),
    [("gpt", True, "bf16"), ("gpt", False, "fp16"), ("lstm", True, "fp16"), ("rnn", True, "fp16")],
)
def test_auto_precision_on_a_gpu_is_bf16_or_fp16_if_that_is_all_it_supports(
    kind: str, has_bf16: bool, chosen: str, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    monkeypatch.setattr(choose, "choose_device", torch.device)
    config = make_config(tiny_text, kind, "train.precision=auto", "train.verify=false")
    model = build_model(config.model, 65, seed=1)
    assert choose_compute(config.train, model, "cuda").precision == chosen


def test_the_number_of_threads_is_recorded_and_kept_by_a_resumed_run(
    threads_as_before: None, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "usable_cpus", lambda: 3)
    config = make_config(tiny_text, "rnn", "train.threads=3", "train.max_steps=2")
    folder = new_run(config, tmp_path)
    assert torch.get_num_threads() == 3
    assert read_meta(folder / LAST).threads == 3
    changed = make_config(tiny_text, "rnn", "train.threads=2", "train.max_steps=2")
    (notice,) = resume(changed, folder, "cpu").notices
    assert "threads was 3 and is 2" in notice
    assert "not with the same bits" in notice
    assert torch.get_num_threads() == 2
    free = make_config(tiny_text, "rnn", "train.threads=null", "train.max_steps=2")
    assert resume(free, folder, "cpu").run.compute.threads == torch.get_num_threads() == 3
    monkeypatch.setattr(session, "usable_cpus", lambda: 1)  # a machine with fewer
    fewer = resume(free, folder, "cpu")
    assert fewer.run.compute.threads == torch.get_num_threads() == 1
    assert "threads was 3 and is 1" in fewer.notices[0]
