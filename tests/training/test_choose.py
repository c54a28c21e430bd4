"""Choosing how to compute, with devices and kernels that are wrong or slow on purpose.

The device cpu:0 stands for an accelerator: it computes on this machine, but differs from CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.config import Config
from charlm.devices import CPU
from charlm.errors import DeviceError
from charlm.files import private_folder
from charlm.kernels.fused import Kernels
from charlm.kernels.variants import Variant
from charlm.models import CharModel, build_model
from charlm.models.base import Forward
from charlm.models.gpt import GPT
from charlm.training import choose, step, trial
from charlm.training.choose import choose_compute
from charlm.training.compute import Compute, forward_of
from charlm.training.measured import ROUNDS
from tests.conftest import KINDS, Charlm, TinyConfig, write_yaml
from tests.training.helpers import assert_same_run, make_config, new_run, resume, start, train

GPU = torch.device("cpu:0")
Wrap = Callable[[Forward, CharModel], Forward]
Accelerator = Callable[..., None]


def right(forward: Forward, _model: CharModel) -> Forward:
    return forward


def with_logits(change: Callable[[Tensor], Tensor]) -> Wrap:
    def wrap(forward: Forward, _model: CharModel) -> Forward:
        def wrong(ids: Tensor, state: Any) -> Any:
            logits, after = forward(ids, state)
            return change(logits), after

        return wrong

    return wrap


reversed_logits = with_logits(lambda logits: logits.flip(-1))
# before training this loss is about right; only the gradient is wrong
swapped_in_time = with_logits(lambda logits: logits.flip(1))
not_finite = with_logits(lambda logits: logits * float("nan"))


def unsupported(_forward: Forward, _model: CharModel) -> Forward:
    def fail(_ids: Tensor, _state: Any) -> Any:
        raise RuntimeError("this layer is not implemented there\nat all")

    return fail


WRONG = (reversed_logits, swapped_in_time, not_finite, unsupported)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    """Add an accelerator whose forward pass is wrapped by a function, and whose step takes a number
    of seconds. That of the CPU takes one second."""

    def add(wrap: Wrap, seconds: float = 0.5) -> None:
        def forward(model: CharModel, compute: Compute, keep_state: bool = True) -> Forward:
            usual = forward_of(model, compute, keep_state)
            return wrap(usual, model) if compute.device == GPU else usual

        def step_seconds(_model: object, _train: object, compute: Compute, *_: Tensor) -> float:
            return seconds if compute.device == GPU else 1.0

        devices = {"auto": GPU, "gpu": GPU, "cpu": CPU}
        monkeypatch.setattr(choose, "choose_device", devices.__getitem__)
        monkeypatch.setattr(trial, "step_seconds", step_seconds)
        for module in (trial, step):
            monkeypatch.setattr(module, "forward_of", forward)

    return add


def config_of(text: Path, kind: str, *overrides: str) -> Config:
    return make_config(text, kind, "train.precision=auto", *overrides)


@pytest.mark.parametrize("kind", KINDS)
def test_an_accelerator_that_is_right_and_faster_is_used_and_reported(
    kind: str, tiny_text: Path, accelerator: Accelerator
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
    assert explicit.checks == (numbers,)  # a device that is named is not timed


@pytest.mark.parametrize("wrap", WRONG)
def test_auto_uses_the_cpu_if_the_accelerator_is_wrong(
    wrap: Wrap, tiny_text: Path, tmp_path: Path, accelerator: Accelerator
) -> None:
    reference = new_run(make_config(tiny_text, "gru"), tmp_path / "reference")
    accelerator(wrap)
    ready = start(make_config(tiny_text, "gru"), tmp_path, "auto")
    assert ready.run.compute.device == CPU
    (notice,) = ready.notices
    assert notice.startswith("cpu:0 is not used in fp32: ")
    assert "\n" not in notice
    train(ready)
    assert_same_run(ready.run.folder, reference)


@pytest.mark.parametrize("wrap", WRONG)
def test_a_wrong_accelerator_that_is_named_is_refused_in_one_line(
    wrap: Wrap, tiny_text: Path, tmp_path: Path, accelerator: Accelerator
) -> None:
    accelerator(wrap)
    with pytest.raises(DeviceError, match=r"^device=cpu:0: its results are wrong: "):
        start(make_config(tiny_text, "lstm"), tmp_path, "gpu")
    assert not (tmp_path / "run").exists()
    unverified = make_config(tiny_text, "lstm", "train.verify=false")  # as the line says
    assert start(unverified, tmp_path, "gpu").run.compute.device == GPU


def test_auto_uses_the_cpu_if_the_accelerator_is_slower(
    tiny_text: Path, accelerator: Accelerator
) -> None:
    accelerator(right, 2.0)
    config = make_config(tiny_text, "rnn")
    model = build_model(config.model, 30, seed=1)
    compute = choose_compute(config.train, model, "auto")
    assert compute.device == CPU
    (notice,) = compute.notices
    assert notice.startswith("cpu:0 is slower than the CPU (")
    assert choose_compute(config.train, model, "gpu").device == GPU
    unverified = config.train.model_copy(update={"verify": False})
    assert choose_compute(unverified, model, "auto").device == GPU


def test_choosing_does_not_change_the_model_or_the_global_generator(
    tiny_text: Path, accelerator: Accelerator
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


def test_a_resumed_run_with_auto_stays_on_its_device(
    tiny_text: Path, tmp_path: Path, accelerator: Accelerator
) -> None:
    config = make_config(tiny_text, "rnn")
    folder = new_run(config, tmp_path, stop_at=3)
    accelerator(right)  # added since, and faster
    assert resume(config, folder, "auto").run.compute.device == CPU


# --- charlm's own kernels --------------------------------------------------------------------


HALF, SINGLE = Variant("amx", half=True), Variant("avx512")


def kernels_of(
    wrap: Wrap, variants: tuple[Variant, ...] = (HALF,), muon: Any = None
) -> type[Kernels]:
    """Kernels that compute as PyTorch in float32, wrapped by a function."""

    def fused(model: CharModel) -> Any:
        wrapped = wrap(model, model)

        def forward(ids: Tensor, state: Any) -> Any:
            with torch.autocast("cpu", enabled=False):
                return wrapped(ids, state)

        return forward

    class OfTest(Kernels):
        @staticmethod
        def variants(_precision: str) -> list[Variant]:
            return list(variants)

        @staticmethod
        def layers(_model: CharModel, _variant: Variant) -> Any:
            return fused

        @staticmethod
        def muon(variant: Variant) -> Any:
            return muon(variant)

    return OfTest


def kernel_takes(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[str]:
    """Set the seconds of a step by each kernel, and return the list of those that are timed."""
    timed: list[str] = []

    def step_seconds(
        _model: object, _train: object, compute: Compute, *_: object, repeats: int
    ) -> float:
        timed.append(compute.kernel)
        return seconds[compute.kernel]

    monkeypatch.setattr(trial, "step_seconds", step_seconds)
    return timed


def choose_lstm(text: Path, kernels: type[Kernels], *overrides: str) -> Compute:
    config = make_config(text, "lstm", "train.kernels=auto", *overrides)
    model = build_model(config.model, 30, seed=1)
    return choose_compute(config.train, model, "cpu", kernels=kernels)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("empty_cache")
def test_a_trial_has_the_dropout_of_the_model(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's dropout takes much time. Without it, PyTorch was chosen for models with dropout,
    which charlm's kernel trains faster."""
    rates = []

    def step_seconds(model: CharModel, *_: object, **__: object) -> float:
        assert isinstance(model, GPT)
        rates.append(model.dropout.p)
        return 1.0

    monkeypatch.setattr(trial, "step_seconds", step_seconds)
    config = make_config(tiny_text, "gpt", "train.kernels=auto", "model.dropout=0.3")
    model = build_model(config.model, 30, seed=1)
    choose_compute(config.train, model, "cpu", kernels=kernels_of(right, (SINGLE,)))
    assert set(rates) == {0.3}


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("amx", "avx512", "fastest"),
    [
        (0.5, 0.7, "amx"),
        (0.7, 0.5, "avx512"),
        (1.2, 2.0, "torch"),
        (1.05, 2.0, "amx"),  # the time of a busy machine may be a little longer by chance
    ],
)
def test_the_fastest_is_used_and_is_timed_once_on_a_machine(
    amx: float, avx512: float, fastest: str, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = kernel_takes(monkeypatch, amx=amx, avx512=avx512, torch=1.0)
    kernels = kernels_of(right, (HALF, SINGLE))
    compute = choose_lstm(tiny_text, kernels)
    assert compute.kernel == fastest
    assert compute.precision == ("bf16" if fastest == "amx" else "fp32")
    assert (compute.fused is None) == (fastest == "torch")
    assert f"{fastest} is used" in compute.checks[-1]
    assert timed == ["amx", "avx512", "torch"] * ROUNDS
    assert choose_lstm(tiny_text, kernels).kernel == fastest
    assert len(timed) == 3 * ROUNDS
    choose_lstm(tiny_text, kernels, "model.hidden_size=9")  # another shape
    assert len(timed) == 6 * ROUNDS


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(("amx_s", "again"), [(0.5, 0), (1.5, 1)])
def test_the_precision_of_pytorch_is_timed_only_if_pytorch_is_timed_or_used(
    amx_s: float, again: int, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_takes(monkeypatch, amx=amx_s, torch=1.0)
    calls: list[object] = []

    def faster(*arguments: object) -> str:
        calls.append(arguments)
        return "bf16"

    monkeypatch.setattr(trial, "unsupported_reason", lambda *_: None)
    monkeypatch.setattr(trial, "faster", faster)
    for expected in (1, again):
        compute = choose_lstm(tiny_text, kernels_of(right), "train.precision=auto")
        assert (compute.kernel, compute.precision) == ("torch" if again else "amx", "bf16")
        assert len(calls) == expected
        calls.clear()


@pytest.mark.usefixtures("empty_cache")
def test_kernels_on_does_not_ask_how_fast_pytorch_is(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = kernel_takes(monkeypatch, amx=2.0, avx512=3.0, torch=1.0)
    asked = "train.kernels=on"
    assert choose_lstm(tiny_text, kernels_of(right, (HALF, SINGLE)), asked).kernel == "amx"
    assert timed == ["amx", "avx512"] * ROUNDS
    assert choose_lstm(tiny_text, kernels_of(right), asked).kernel == "amx"
    assert len(timed) == 2 * ROUNDS  # there is nothing to choose
    off = choose_lstm(tiny_text, kernels_of(right), "train.kernels=off")
    assert (off.kernel, off.precision, off.fused) == ("torch", "fp32", None)


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize("content", [b"", b"{}", b'{"amx": 1, "torch": 2}', b"[" * 9999, b"\xff"])
def test_times_in_the_cache_that_are_damaged_are_measured_again(
    content: bytes, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = kernel_takes(monkeypatch, amx=0.5, torch=1.0)
    choose_lstm(tiny_text, kernels_of(right))
    (file,) = private_folder("kernels").glob("*.seconds")
    file.write_bytes(content)
    assert choose_lstm(tiny_text, kernels_of(right)).kernel == "amx"
    assert len(timed) == 4 * ROUNDS


@pytest.mark.parametrize("wrap", [reversed_logits, swapped_in_time, not_finite])
def test_a_kernel_that_is_wrong_is_reported_and_not_used(wrap: Wrap, tiny_text: Path) -> None:
    compute = choose_lstm(tiny_text, kernels_of(wrap))
    assert (compute.kernel, compute.precision) == ("torch", "fp32")
    (notice,) = compute.notices
    assert notice.startswith("charlm's kernel is wrong on this CPU and not used: loss ")
    with pytest.raises(DeviceError, match=r"^train.kernels on: charlm's kernel is wrong .*; use "):
        choose_lstm(tiny_text, kernels_of(wrap), "train.kernels=on")


def test_a_muon_kernel_that_is_wrong_is_not_used(tiny_text: Path) -> None:
    class Signs:
        precision = "bf16"

        def __init__(self, _variant: Variant) -> None:
            pass

        def steps(self, matrices: list[Any], _momentum: float, _decay: float) -> None:
            for it in matrices:
                it.weights.copy_(-it.rate * torch.sign(it.gradient) / it.weights.shape[1] ** 0.5)

    kernels, muon = kernels_of(right, muon=Signs), "train.optimizer.kind=muon"
    compute = choose_lstm(tiny_text, kernels, muon)
    assert (compute.fused_muon, compute.muon_kernel) == (None, "torch")
    assert "Muon's orthogonal factor is" in compute.notices[0]
    asked = choose_lstm(tiny_text, kernels, muon, "train.kernels=on")
    assert (asked.kernel, asked.muon_kernel) == ("amx", "torch")


# --- precision -------------------------------------------------------------------------------


def step_takes(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Set the seconds of a step in each precision, on a machine that supports all of them."""
    monkeypatch.setattr(trial, "unsupported_reason", lambda *_: None)
    monkeypatch.setattr(
        trial, "step_seconds", lambda _model, _train, compute, *_: seconds[compute.precision]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("bf16", "chosen"), [(0.5, "bf16"), (0.9, "fp32"), (1.5, "fp32"), (500.0, "fp32")]
)
def test_auto_precision_on_a_cpu_is_bf16_if_that_is_clearly_faster(
    kind: str, bf16: float, chosen: str, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_takes(monkeypatch, fp32=1.0, bf16=bf16)
    config = config_of(tiny_text, kind)
    compute = choose_compute(config.train, build_model(config.model, 30, seed=1), "cpu")
    assert compute.precision == chosen


@pytest.fixture
def no_half_lstm() -> Iterator[None]:
    """A PyTorch whose LSTM cannot compute under autocast."""

    def fail(module: nn.Module, _inputs: object) -> None:
        if isinstance(module, nn.LSTM) and torch.is_autocast_enabled("cpu"):
            raise RuntimeError("could not create a primitive descriptor\nRun with ...")

    with register_module_forward_pre_hook(fail):
        yield


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_an_unsupported_precision_is_refused_in_one_line_and_not_chosen_by_auto(
    no_half_lstm: None, precision: str, tiny_config: TinyConfig, charlm: Charlm, tmp_path: Path
) -> None:
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


def test_a_resumed_run_keeps_its_precision_unless_that_is_far_slower(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny_text, "gru")
    step_takes(monkeypatch, fp32=1.0, bf16=0.5)
    folder = new_run(config, tmp_path, stop_at=3)
    assert read_meta(folder / LAST).precision == "bf16"
    step_takes(monkeypatch, fp32=1.0, bf16=3.0)  # slower now, as on another machine
    ready = resume(config, folder, "cpu")
    assert ready.run.compute.precision == "bf16"
    assert ready.notices == []
    step_takes(monkeypatch, fp32=1.0, bf16=100.0)
    ready = resume(config, folder, "cpu")
    assert ready.run.compute.precision == "fp32"
    (notice,) = ready.notices
    assert "precision was bf16 and is fp32" in notice


# --- Muon ------------------------------------------------------------------------------------

WIDE = ("train.optimizer.kind=muon", "model.hidden_size=64", "train.precision=fp32")


def muon_takes(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Set the seconds of Muon's products in each precision."""
    monkeypatch.setattr(trial, "muon_seconds", lambda _shape, _device, it, _share: seconds[it])


@pytest.mark.parametrize(("bf16", "chosen"), [(0.4, "bf16"), (0.9, "fp32"), (130.0, "fp32")])
def test_muon_uses_the_faster_precision_and_a_resumed_run_keeps_it(
    bf16: float, chosen: str, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tiny_text, "lstm", *WIDE, "train.max_steps=4")
    muon_takes(monkeypatch, fp32=1.0, bf16=bf16)
    reference = new_run(config, tmp_path / "reference")
    folder = new_run(config, tmp_path / "parts", stop_at=2)
    assert read_meta(folder / LAST).muon == chosen
    muon_takes(monkeypatch, fp32=1.0, bf16={"bf16": 3.0, "fp32": 0.3}[chosen])  # another machine
    ready = resume(config, folder, "cpu")
    assert ready.notices == []
    train(ready)
    assert_same_run(folder, reference)


def test_muon_of_an_old_checkpoint_stays_in_bf16_unless_that_is_far_slower(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tiny_text, "lstm", *WIDE)
    folder = new_run(config, tmp_path, stop_at=2)
    raw = read_meta(folder / LAST).model_dump(mode="json", exclude={"muon"}) | {"format": 1}
    save_file(load_file(folder / LAST), folder / LAST, {"charlm": json.dumps(raw)})
    for seconds, chosen in ((3.0, "bf16"), (130.0, "fp32")):
        muon_takes(monkeypatch, fp32=1.0, bf16=seconds)
        assert resume(config, folder, "cpu").run.compute.muon == chosen


def test_muon_is_timed_in_both_precisions_on_this_machine() -> None:
    for precision in ("fp32", "bf16"):
        assert 0 < trial.muon_seconds((16, 64), "cpu", precision, 1.0) < 60
    assert trial.muon_seconds((16, 64), "meta", "fp32", 1.0) == float("inf")
