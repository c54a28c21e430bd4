"""Trials: what a look finds, when two agree, which of two ways is the faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from charlm.config import GPTConfig, RecurrentConfig, TrainConfig
from charlm.devices import CPU
from charlm.models import CharModel, build_model
from charlm.training.compute import Compute
from charlm.training.trial import (
    FLOPS,
    Look,
    compare,
    fastest,
    look,
    random_batch,
    without_dropout,
)
from tests.conftest import KINDS

EXACT = Compute(CPU, "fp32", 1)
V = 11


def model_of(kind: str, **more: object) -> CharModel:
    """A small model with every kind of dropout there is."""
    if kind == "gpt":
        raw = {"kind": kind, "n_layer": 2, "n_head": 2, "n_embd": 16, "context": 16, "dropout": 0.5}
        return build_model(GPTConfig.model_validate(raw | more), V, seed=1)
    dropouts = {f"{name}dropout": 0.5 for name in ("", "input_", "output_", "weight_")}
    raw = {"kind": kind, "n_layer": 2, "hidden_size": 16} | dropouts
    return build_model(RecurrentConfig.model_validate(raw | more), V, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_is_the_loss_and_gradient_of_the_batch_and_leaves_nothing(kind: str) -> None:
    model = without_dropout(model_of(kind)).train()
    generator = torch.get_rng_state()
    x, y = random_batch(TrainConfig(batch_size=3, seq_len=9), model)
    found = look(model, EXACT, x, y)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())
    logits, _ = model(x)
    loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    torch.autograd.backward(loss)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert found.loss == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(found.gradient, gradient)


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_two_passes_in_training_mode_are_the_same(kind: str) -> None:
    model = model_of(kind).train()
    ids = torch.arange(10).reshape(2, 5)
    assert not torch.equal(model(ids)[0], model(ids)[0])
    plain = without_dropout(model)
    assert torch.equal(plain(ids)[0], plain(ids)[0])
    assert plain.training
    torch.testing.assert_close(plain(ids)[0], model.eval()(ids)[0])
    assert not torch.equal(model.train()(ids)[0], model(ids)[0])  # and the model is as it was


def exact() -> Look:
    generator = torch.Generator().manual_seed(1)
    return Look(2.0, torch.randn(1000, generator=generator))


@pytest.mark.parametrize(
    ("wrong", "fine"),
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
def test_two_looks_agree_within_what_a_precision_explains(
    wrong: Callable[[Look], Look], fine: set[str]
) -> None:
    for precision in ("fp32", "bf16", "fp16"):
        agrees, text = compare(wrong(exact()), exact(), precision)
        assert agrees == (precision in fine)
        assert "2.0000 in float32 on the CPU" in text


def test_half_precision_of_a_true_model_agrees() -> None:
    for kind in KINDS:
        model = without_dropout(model_of(kind))
        x, y = random_batch(TrainConfig(batch_size=4, seq_len=16), model)
        found = look(model, EXACT, x, y)
        for precision in ("bf16", "fp16"):
            try:
                half = look(model, replace(EXACT, precision=precision), x, y)
            except RuntimeError:  # not every CPU has every layer in it
                continue
            agrees, text = compare(half, found, precision)
            assert agrees, f"{kind} {precision} {text}"


# --- which is faster -------------------------------------------------------------------------


class Way:
    """Takes `seconds` for all of the work, and keeps in mind what it was asked for."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.shares = seconds, list[float]()

    def __call__(self, share: float) -> float:
        self.shares.append(share)
        return self.seconds * share


@pytest.mark.parametrize(
    ("seconds", "margin", "winner"),
    [(0.9, 1.3, "a"), (0.5, 1.3, "b"), (0.5, 3.0, "a"), (5.0, 1.3, "a"), (0.1, 3.0, "b")],
)
def test_the_preferred_way_is_taken_unless_the_other_is_clearly_faster(
    seconds: float, margin: float, winner: str
) -> None:
    ways = {"a": Way(1.0), "b": Way(seconds)}
    found, measured = fastest(ways, "a", margin, shares=(0.1, 1))
    assert found == winner
    assert measured["a"] in (1.0, 0.1)


def test_what_is_hopelessly_slow_is_given_up_early() -> None:
    fast, slow, broken = Way(1.0), Way(100.0), Way(float("inf"))
    ways = {"slow": slow, "fast": fast, "broken": broken}
    assert fastest(ways, "fast", 1.3, shares=(0.01, 0.1, 1))[0] == "fast"
    assert slow.shares == broken.shares == [0.01]
    assert fastest({"fast": fast, "slow": slow}, "slow", 4.0, shares=(0.01, 1))[0] == "fast"
    assert slow.shares[-1] == 0.01


def test_the_preferred_way_is_not_given_up_for_a_short_time_that_was_off() -> None:
    """As on a busy machine, where a millisecond may take twenty."""

    def late_at_first(share: float) -> float:
        return 20 * share if share < 0.1 else share

    ways: dict[str, Callable[[float], float]] = {"a": late_at_first, "b": Way(3.0)}
    assert fastest(ways, "a", 1.3, shares=(0.01, 0.5, 1))[0] == "a"


def test_a_trial_of_a_large_model_is_short() -> None:
    """The work is bounded, whatever the batch; and the batch is never larger than a step's."""
    large = model_of("lstm", hidden_size=512)
    train = TrainConfig(batch_size=512, seq_len=1024)
    for share in (0, 1 / 64, 1):
        x, y = random_batch(train, large, share)
        assert x.shape == y.shape
        assert x.numel() <= max(8, FLOPS * share / (6 * large.count_parameters()))
    small = TrainConfig(batch_size=2, seq_len=3)
    assert random_batch(small, model_of("rnn"))[0].shape == (2, 3)
    assert random_batch(small, model_of("rnn"), 1 / 64)[0].numel() <= 6
