"""Choosing by trying: a device or kernel that is wrong, or slow, on purpose; and precision.

An accelerator is played by the device cpu:0, which is not charlm's CPU and yet computes here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.checkpoint.upgrade import upgraded
from charlm.config import Config
from charlm.devices import CPU
from charlm.errors import DeviceError
from charlm.kernels.build import NoKernelError
from charlm.models import CharModel, build_model
from charlm.training import choose, session, step, trial
from charlm.training.choose import choose_compute
from charlm.training.compute import Compute, Forward, forward_of
from tests.conftest import KINDS, Charlm, TinyConfig, write_yaml
from tests.training.helpers import assert_same_run, make_config, new_run, train

GPU = torch.device("cpu:0")
Wrap = Callable[[Forward, CharModel], Forward]


def right(forward: Forward, _model: CharModel) -> Forward:
    return forward


def reversed_logits(forward: Forward, _model: CharModel) -> Forward:
    def wrong(ids: Tensor, state: Any) -> Any:
        logits, after = forward(ids, state)
        return logits.flip(-1), after

    return wrong


def swapped_in_time(forward: Forward, _model: CharModel) -> Forward:
    """At the start its loss is as good as any: only the gradient tells."""

    def wrong(ids: Tensor, state: Any) -> Any:
        logits, after = forward(ids, state)
        return logits.flip(1), after

    return wrong


def not_finite(forward: Forward, _model: CharModel) -> Forward:
    def wrong(ids: Tensor, state: Any) -> Any:
        logits, after = forward(ids, state)
        return logits * float("nan"), after

    return wrong


def refusing(_forward: Forward, _model: CharModel) -> Forward:
    def refuse(_ids: Tensor, _state: Any) -> Any:
        raise RuntimeError("this layer is not implemented there\nat all")

    return refuse


def slow(forward: Forward, _model: CharModel) -> Forward:
    def late(ids: Tensor, state: Any) -> Any:
        time.sleep(0.05)
        return forward(ids, state)

    return late


WRONG = (reversed_logits, swapped_in_time, not_finite, refusing)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wrap], None]:
    """Plug an accelerator in, whose forward pass is another."""

    def plug(wrap: Wrap) -> None:
        def forward(model: CharModel, compute: Compute, keep_state: bool = True) -> Forward:
            usual = forward_of(model, compute, keep_state)
            if compute.device == GPU:
                return wrap(usual, model)
            return slow(usual, model) if wrap is right else usual

        devices = {"auto": GPU, "gpu": GPU, "cpu": CPU}
        monkeypatch.setattr(choose, "choose_device", devices.__getitem__)
        for module in (trial, step):
            monkeypatch.setattr(module, "forward_of", forward)

    return plug


def config_of(text: Path, kind: str, *overrides: str) -> Config:
    return make_config(text, kind, "train.precision=auto", *overrides)


@pytest.mark.parametrize("kind", KINDS)
def test_an_accelerator_that_is_right_and_faster_is_taken_and_the_look_is_printed(
    kind: str, tiny_text: Path, accelerator: Callable[[Wrap], None]
) -> None:
    accelerator(right)
    config = config_of(tiny_text, kind)
    compute = choose_compute(config.train, build_model(config.model, 30, seed=1), "auto")
    assert compute.device == GPU
    assert compute.notices == ()
    numbers, times = compute.checks
    assert "in float32 on the CPU; gradients 0.0% apart" in numbers
    assert "ms a step, and on the CPU" in times
    explicit = choose_compute(config.train, build_model(config.model, 30, seed=1), "gpu")
    assert explicit.device == GPU
    assert explicit.checks == (numbers,)  # whoever names it has decided


@pytest.mark.parametrize("wrap", WRONG)
def test_auto_goes_on_on_the_cpu_where_an_accelerator_is_wrong(
    wrap: Wrap, tiny_text: Path, tmp_path: Path, accelerator: Callable[[Wrap], None]
) -> None:
    reference = new_run(make_config(tiny_text, "gru"), tmp_path / "reference")
    accelerator(wrap)
    ready = session.start(make_config(tiny_text, "gru"), tmp_path, "auto")
    assert ready.run.compute.device == CPU
    (notice,) = ready.notices
    assert notice.startswith("cpu:0 is not used in fp32: ")
    assert "\n" not in notice
    train(ready)
    assert_same_run(ready.run.folder, reference)


@pytest.mark.parametrize("wrap", WRONG)
def test_a_run_that_names_a_wrong_accelerator_stops_in_one_line(
    wrap: Wrap, tiny_text: Path, tmp_path: Path, accelerator: Callable[[Wrap], None]
) -> None:
    accelerator(wrap)
    with pytest.raises(DeviceError, match=r"^device=cpu:0: its results are wrong: "):
        session.start(make_config(tiny_text, "lstm"), tmp_path, "gpu")
    assert not (tmp_path / "run").exists()
    unseen = make_config(tiny_text, "lstm", "train.verify=false")  # as the line says
    assert session.start(unseen, tmp_path, "gpu").run.compute.device == GPU


def test_auto_goes_on_on_the_cpu_where_an_accelerator_is_slower(
    tiny_text: Path, accelerator: Callable[[Wrap], None]
) -> None:
    accelerator(slow)
    config = make_config(tiny_text, "rnn")
    model = build_model(config.model, 30, seed=1)
    compute = choose_compute(config.train, model, "auto")
    assert compute.device == CPU
    (notice,) = compute.notices
    assert notice.startswith("cpu:0 is slower than the CPU (")
    assert choose_compute(config.train, model, "gpu").device == GPU  # whoever names it has decided
    blind = config.train.model_copy(update={"verify": False})
    assert choose_compute(blind, model, "auto").device == GPU


def test_a_look_changes_nothing_in_the_model_or_the_generators(
    tiny_text: Path, accelerator: Callable[[Wrap], None]
) -> None:
    accelerator(right)
    config = make_config(tiny_text, "lstm", "train.optimizer.kind=muon")
    model = build_model(config.model, 30, seed=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    generator = torch.get_rng_state()
    choose_compute(config.train, model, "auto")
    assert torch.equal(torch.get_rng_state(), generator)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None
    assert model.training


def test_a_resumed_run_goes_on_where_it_ran_without_being_asked(
    tiny_text: Path, tmp_path: Path, accelerator: Callable[[Wrap], None]
) -> None:
    config = make_config(tiny_text, "rnn")
    folder = new_run(config, tmp_path, stop_at=3)
    accelerator(right)  # plugged in since, and faster
    assert session.resume(config, folder, "auto").run.compute.device == CPU


# --- charlm's own kernels --------------------------------------------------------------------


def pretend_kernel(monkeypatch: pytest.MonkeyPatch, wrap: Wrap) -> None:
    """A kernel for LSTMs that computes by PyTorch and is wrapped."""

    class Fused:
        supports = staticmethod(lambda _model, _rows: True)

        def __init__(self, model: CharModel, kernel: object) -> None:  # noqa: ARG002
            self._forward = wrap(model, model)

        def __call__(self, ids: Tensor, state: Any) -> Any:
            return self._forward(ids, state)

    monkeypatch.setattr(choose, "cpu_has_amx", lambda: True)
    monkeypatch.setattr(choose, "LSTMKernel", object)
    monkeypatch.setattr(choose, "FusedLSTM", Fused)
    monkeypatch.setattr(Compute, "autocast", lambda _: torch.enable_grad())


def test_a_kernel_that_is_right_is_used_and_the_look_is_printed(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_kernel(monkeypatch, right)
    config = config_of(tiny_text, "lstm", "train.compile=auto")
    compute = choose_compute(config.train, build_model(config.model, 30, seed=1), "cpu")
    assert (compute.kernel, compute.precision) == ("amx", "bf16")
    assert compute.checks[0].startswith("charlm's kernel, bf16: loss ")
    asked = config_of(tiny_text, "lstm", "train.compile=off")
    assert choose_compute(asked.train, build_model(asked.model, 30, 1), "cpu").kernel == "torch"


@pytest.mark.parametrize("wrap", [reversed_logits, swapped_in_time, not_finite])
def test_a_kernel_that_is_wrong_is_not_used_and_one_line_says_so(
    wrap: Wrap, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_kernel(monkeypatch, wrap)
    config = config_of(tiny_text, "lstm", "train.compile=auto")
    compute = choose_compute(config.train, build_model(config.model, 30, seed=1), "cpu")
    assert (compute.kernel, compute.precision) == ("torch", "fp32")
    (notice,) = compute.notices
    assert notice.startswith("charlm's kernel is wrong on this CPU and not used: loss ")


def test_a_muon_kernel_that_is_wrong_is_not_used(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kernel:
        supports = staticmethod(lambda _matrix: True)

        def steps(self, matrices: list[Any], _momentum: float, _decay: float) -> None:
            for it in matrices:
                it.weights.copy_(-it.rate * torch.sign(it.gradient) / it.weights.shape[1] ** 0.5)

    monkeypatch.setattr(choose, "cpu_has_amx", lambda: True)
    monkeypatch.setattr(choose, "NewtonSchulz", Kernel)
    config = make_config(tiny_text, "rnn", "train.optimizer.kind=muon", "train.compile=auto")
    compute = choose_compute(config.train, build_model(config.model, 30, seed=1), "cpu")
    assert compute.newton_schulz is None
    assert "Muon's orthogonal factor is" in compute.notices[0]


def test_without_a_compiler_one_line_says_that_it_takes_longer(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_kernel() -> None:
        raise NoKernelError("there is no C compiler")

    pretend_kernel(monkeypatch, right)
    monkeypatch.setattr(choose, "LSTMKernel", no_kernel)
    config = config_of(tiny_text, "lstm", "train.compile=auto")
    compute = choose_compute(config.train, build_model(config.model, 30, seed=1), "cpu")
    assert compute.kernel == "torch"
    assert "there is no C compiler" in compute.notices[0]


# --- precision -------------------------------------------------------------------------------


def measured(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """A machine on which a step takes so long in each precision, and half precision works."""
    monkeypatch.setattr(choose._Chooser, "_failure", lambda *_: None)
    monkeypatch.setattr(
        choose, "step_seconds", lambda _model, _train, compute, *_: seconds[compute.precision]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bf16", "chosen"), [(0.5, "bf16"), (0.9, "fp32"), (1.5, "fp32"), (500.0, "fp32")]
)
def test_auto_precision_on_a_cpu_is_bf16_where_it_is_clearly_faster(
    kind: str, bf16: float, chosen: str, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, fp32=1.0, bf16=bf16)
    config = config_of(tiny_text, kind)
    compute = choose_compute(config.train, build_model(config.model, 30, seed=1), "cpu")
    assert compute.precision == chosen


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_pytorch_cannot_do_is_one_line_where_asked_and_not_chosen_where_not(
    precision: str,
    tiny_config: TinyConfig,
    charlm: Charlm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_self: object, x: Tensor, *_: object) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive descriptor\nRun with ...")
        return x

    monkeypatch.setattr("charlm.models.recurrent.Recurrent._run", lambda *it: (fail(*it), it[1]))
    raw = tiny_config("lstm")
    raw["train"]["precision"] = precision
    file = write_yaml(tmp_path / "lstm.yaml", raw)
    command = ("train", "--config", file, "--out", tmp_path, "--device", "cpu")
    result = charlm(*command)
    assert result.status == 2
    assert result.err.startswith(f"charlm: train.precision {precision}: PyTorch cannot train this")
    assert result.err.endswith("; use fp32 or auto\n")
    assert result.err.count("\n") == 1
    model = build_model(make_config(file, "lstm").model, 30, seed=1)
    auto = make_config(file, "lstm", "train.precision=auto")
    assert choose_compute(auto.train, model, "cpu").precision == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_precision_trains_or_is_refused_in_one_line(
    kind: str, precision: str, tiny_text: Path, tmp_path: Path
) -> None:
    settings = (f"train.precision={precision}", "train.max_steps=2", "train.optimizer.kind=muon")
    try:
        folder = new_run(make_config(tiny_text, kind, *settings), tmp_path)
    except DeviceError as error:
        assert str(error).startswith(f"train.precision {precision}: ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert read_meta(folder / LAST).progress.finished


def test_a_resumed_run_keeps_its_precision_where_that_is_bearable(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny_text, "gru")
    measured(monkeypatch, fp32=1.0, bf16=0.5)
    folder = new_run(config, tmp_path, stop_at=3)
    assert read_meta(folder / LAST).precision == "bf16"
    measured(monkeypatch, fp32=1.0, bf16=3.0)  # slower now, as on another machine
    ready = session.resume(config, folder, "cpu")
    assert ready.run.compute.precision == "bf16"
    assert ready.notices == []
    measured(monkeypatch, fp32=1.0, bf16=100.0)
    ready = session.resume(config, folder, "cpu")
    assert ready.run.compute.precision == "fp32"
    (notice,) = ready.notices
    assert "precision was bf16 and is fp32" in notice


# --- Muon ------------------------------------------------------------------------------------

WIDE = ("train.optimizer.kind=muon", "model.hidden_size=64", "train.precision=fp32")


def muon_takes(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    monkeypatch.setattr(choose, "muon_seconds", lambda _shape, _device, it, _share: seconds[it])


@pytest.mark.parametrize(("bf16", "chosen"), [(0.4, "bf16"), (0.9, "fp32"), (130.0, "fp32")])
def test_muon_computes_in_what_is_faster_here_and_a_resumed_run_keeps_that(
    bf16: float,
    chosen: str,
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = make_config(tiny_text, "lstm", *WIDE, "train.max_steps=4")
    muon_takes(monkeypatch, fp32=1.0, bf16=bf16)
    reference = new_run(config, tmp_path / "reference")
    folder = new_run(config, tmp_path / "parts", stop_at=2)
    assert read_meta(folder / LAST).muon == chosen
    muon_takes(monkeypatch, fp32=1.0, bf16={"bf16": 3.0, "fp32": 0.3}[chosen])  # another machine
    ready = session.resume(config, folder, "cpu")
    assert ready.notices == []
    train(ready)
    assert_same_run(folder, reference)


def test_muon_of_an_old_checkpoint_goes_on_in_bf16_where_that_is_bearable(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tiny_text, "lstm", *WIDE)
    folder = new_run(config, tmp_path, stop_at=2)
    meta = read_meta(folder / LAST)
    old = type(meta).model_validate(upgraded(meta.model_dump(exclude={"muon"}) | {"format": 1}))
    monkeypatch.setattr(session, "read_meta", lambda _: old)
    for seconds, chosen in ((3.0, "bf16"), (130.0, "fp32")):
        muon_takes(monkeypatch, fp32=1.0, bf16=seconds)
        assert session.resume(config, folder, "cpu").run.compute.muon == chosen


def test_muon_is_measured_in_both_types_on_this_machine() -> None:
    for precision in ("fp32", "bf16"):
        assert 0 < choose.muon_seconds((16, 64), "cpu", precision, 1.0) < 60
    assert choose.muon_seconds((16, 64), "meta", "fp32", 1.0) == float("inf")
