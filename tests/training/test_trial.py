"""Trials: loss and gradient of a batch, whether two agree, and the faster of two precisions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from charlm.config import TrainConfig
from charlm.devices import CPU
from charlm.models import CharModel, build_model
from charlm.training.compute import Compute, Precision
from charlm.training.trial import (
    MAX_FLOPS,
    SHARES,
    LossAndGradient,
    compare,
    faster,
    loss_and_gradient,
    random_batch,
    step_seconds,
    without_dropout,
)
from tests.conftest import KINDS
from tests.models import model_config

FLOAT32 = Compute(CPU, "fp32", 1)
V = 11


def model_of(kind: str, **more: object) -> CharModel:
    """A small model with every kind of dropout."""
    dropouts = {f"{name}dropout": 0.5 for name in ("", "input_", "output_", "weight_")}
    sizes = {
        "gpt": {"n_head": 2, "n_embd": 16, "context": 16, "dropout": 0.5},
        "mlp": {"hidden_size": 16, "n_embd": 4, "context": 5, "dropout": 0.5},
    }.get(kind, {"hidden_size": 16, **dropouts})
    return build_model(model_config({"kind": kind, "n_layer": 2} | sizes | more), V, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_the_batch_and_nothing_else_changes(kind: str) -> None:
    model = without_dropout(model_of(kind)).train()
    generator = torch.get_rng_state()
    x, y = random_batch(TrainConfig(batch_size=3, seq_len=9), model)
    result = loss_and_gradient(model, FLOAT32, x, y)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())
    logits, _ = model(x)
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    torch.autograd.backward(loss)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(result.gradient, gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_two_passes_in_training_mode_are_the_same(kind: str) -> None:
    model = model_of(kind).train()
    ids = torch.arange(10).reshape(2, 5)
    assert not torch.equal(model(ids)[0], model(ids)[0])
    plain = without_dropout(model)
    assert torch.equal(plain(ids)[0], plain(ids)[0])
    assert plain.training
    torch.testing.assert_close(plain(ids)[0], model.eval()(ids)[0])
    assert not torch.equal(model.train()(ids)[0], model(ids)[0])  # the model keeps its dropout


def reference() -> LossAndGradient:
    generator = torch.Generator().manual_seed(1)
    return LossAndGradient(2.0, torch.randn(1000, generator=generator))


@pytest.mark.parametrize(
    ("change", "accepted"),
    [
        (lambda it: it, {"fp32", "bf16", "fp16"}),
        (lambda it: replace(it, loss=it.loss * 1.004), {"bf16", "fp16"}),
        (lambda it: replace(it, gradient=it.gradient * 1.2), {"bf16"}),
        (lambda it: replace(it, loss=it.loss * 1.1), set()),
        (lambda it: replace(it, loss=float("nan")), set()),
        (lambda it: replace(it, gradient=it.gradient.flip(0)), set()),  # of the same norm
        (lambda it: replace(it, gradient=it.gradient * float("nan")), set()),
        (lambda it: replace(it, gradient=it.gradient * 0), set()),
    ],
)
def test_two_results_agree_within_the_tolerance_of_a_precision(
    change: Callable[[LossAndGradient], LossAndGradient], accepted: set[str]
) -> None:
    for precision in ("fp32", "bf16", "fp16"):
        agrees, text = compare(change(reference()), reference(), precision)
        assert agrees == (precision in accepted)
        assert "2.0000 in float32 on the CPU" in text


def test_half_precision_of_a_real_model_agrees() -> None:
    for kind in KINDS:
        model = without_dropout(model_of(kind))
        x, y = random_batch(TrainConfig(batch_size=4, seq_len=16), model)
        result = loss_and_gradient(model, FLOAT32, x, y)
        for precision in ("bf16", "fp16"):
            try:
                half = loss_and_gradient(model, replace(FLOAT32, precision=precision), x, y)
            except RuntimeError:  # no CPU supports it in every layer
                continue
            agrees, text = compare(half, result, precision)
            assert agrees, f"{kind} {precision} {text}"


# --- the faster of two precisions --------------------------------------------------------------


class Timer:
    """Returns the seconds of a share of the work, and records the shares that were timed."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.shares = seconds, list[tuple[str, float]]()

    def __call__(self, precision: str, share: float) -> float:
        self.shares.append((precision, share))
        return self.seconds[precision] * share


@pytest.mark.parametrize(
    ("recorded", "bf16", "chosen"),
    [
        *((None, 0.9, "fp32"), (None, 0.5, "bf16"), (None, 5.0, "fp32"), (None, 0.1, "bf16")),
        *(("fp16", 0.9, "fp32"), ("fp16", 0.5, "bf16")),
        *(("fp32", 0.5, "fp32"), ("fp32", 0.1, "bf16"), ("fp32", float("inf"), "fp32")),
        *(("bf16", 3.0, "bf16"), ("bf16", 5.0, "fp32"), ("bf16", float("inf"), "fp32")),
    ],
)
def test_the_preferred_precision_is_chosen_unless_the_other_is_clearly_faster(
    recorded: Precision | None, bf16: float, chosen: str
) -> None:
    assert faster(Timer(fp32=1.0, bf16=bf16), recorded, shares=(0.1, 1)) == chosen


@pytest.mark.parametrize(
    ("recorded", "bf16", "times"),
    [(None, 3.0, 3), (None, 5.0, 1), ("bf16", 5.0, 3), ("bf16", 33.0, 1), (None, 1 / 33, 1)],
)
def test_a_precision_that_is_far_slower_is_given_up_early(
    recorded: Precision | None, bf16: float, times: int
) -> None:
    timer = Timer(fp32=1.0, bf16=bf16)
    faster(timer, recorded, shares=(0.01, 0.1, 1))
    assert [share for precision, share in timer.shares if precision == "bf16"] == [0.01, 0.1, 1][
        :times
    ]
    assert len(timer.shares) == 2 * times


def test_the_preferred_precision_is_not_given_up_for_one_wrong_short_time() -> None:
    """On a busy machine a millisecond may take twenty."""

    def seconds(precision: str, share: float) -> float:
        late = 20 if precision == "fp32" and share < 0.1 else 1
        return late * share * {"fp32": 1.0, "bf16": 3.0}[precision]

    assert faster(seconds, None, shares=(0.01, 0.5, 1)) == "fp32"


def test_a_trial_of_a_large_model_is_short() -> None:
    """The work is bounded for any batch size; the batch is never larger than that of a step."""
    large = model_of("lstm", hidden_size=512)
    train = TrainConfig(batch_size=512, seq_len=1024)
    for share in (0, 1 / 64, 1):
        x, y = random_batch(train, large, share)
        assert x.shape == y.shape
        assert x.numel() <= max(8, MAX_FLOPS * share / (6 * large.count_parameters()))
    small = TrainConfig(batch_size=2, seq_len=3)
    assert random_batch(small, model_of("rnn"))[0].shape == (2, 3)
    assert random_batch(small, model_of("rnn"), 1 / 64)[0].numel() <= 6


def test_a_trial_of_a_large_model_has_work_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one sequence, a kernel used one of two threads, and looked slower than PyTorch."""
    large = model_of("gpt", n_embd=256, context=256)
    for threads in (1, 2, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        x, _ = random_batch(TrainConfig(batch_size=64, seq_len=256), large, 0.05)
        assert len(x) == threads
        assert len(random_batch(TrainConfig(batch_size=1, seq_len=256), large, 0.05)[0]) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch_size", "grad_accum"), [(1, 1), (2, 2), (8, 4), (8, 8)])
def test_a_step_is_timed_on_any_share_of_a_batch_in_pieces(
    kind: str, batch_size: int, grad_accum: int
) -> None:
    train = TrainConfig(batch_size=batch_size, grad_accum=grad_accum, seq_len=16)
    model, generator = model_of(kind), torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    for share in (0.0, *SHARES):
        batch = random_batch(train, model, share)
        assert step_seconds(model, train, FLOAT32, *batch) > 0
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(before[name], it) for name, it in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
