"""Which optimizer updates which parameter, and by how much."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from charlm.config import ModelConfig, OptimizerConfig
from charlm.models import CharModel, build_model
from charlm.training.optim import Optimizers
from tests.training.helpers import OPTIMIZERS

Floats = NDArray[np.float64]
LR, DECAY, STEPS, V = 0.01, 0.1, 3, 11
NETWORKS: dict[str, dict[str, Any]] = {
    "rnn": {"kind": "rnn", "n_layer": 2, "hidden_size": 6},
    "one-hot": {"kind": "gru", "n_layer": 2, "hidden_size": 6, "input": "one_hot"},
    "tied": {"kind": "lstm", "n_layer": 1, "hidden_size": 6, "tie_weights": True},
    "mlp": {"kind": "mlp", "n_layer": 1, "hidden_size": 6, "input": "one_hot", "context": 3},
    "gpt": {"kind": "gpt", "n_layer": 2, "n_head": 2, "n_embd": 8, "context": 4},
    "gpt-tied": {
        **{"kind": "gpt", "n_layer": 1, "n_head": 2, "n_embd": 8, "context": 4},
        **{"tie_weights": True, "position": "learned", "bias": True, "norm": "layernorm"},
    },
}


def network(name: str) -> CharModel:
    config: Any = TypeAdapter(ModelConfig).validate_python(NETWORKS[name])
    return build_model(config, V, seed=4)


def optimizers(model: CharModel, kind: str, **settings: float) -> Optimizers:
    raw = {"kind": kind, "lr": LR, "weight_decay": DECAY} | settings
    config: Any = TypeAdapter(OptimizerConfig).validate_python(raw)
    return Optimizers(model, config)


def gradients(weight: Tensor) -> list[Tensor]:
    """The same for every test. None is near 0, so that rounding cannot change a sign."""
    generator = torch.Generator().manual_seed(weight.numel())
    draws = [torch.randn(weight.shape, generator=generator) for _ in range(STEPS)]
    return [draw.sign() * (draw.abs() + 0.1) for draw in draws]


def take_steps(model: CharModel, moving: Optimizers, scale: float = 1.0) -> None:
    gradient = {p: gradients(p) for p in model.parameters()}
    for step in range(STEPS):
        moving.set_lr(scale)
        for parameter in model.parameters():
            parameter.grad = gradient[parameter][step].clone()
        for optimizer in moving.each:
            optimizer.step()
        moving.zero_grad()


# --- update rules, from their papers -------------------------------------------------------------


def sgd(w: Floats, g: Iterator[Floats], lr: float, decay: float) -> Floats:
    velocity = np.zeros_like(w)
    for gradient in g:
        velocity = 0.9 * velocity + gradient + decay * w
        w = w - lr * velocity
    return w


def rmsprop(w: Floats, g: Iterator[Floats], lr: float, decay: float) -> Floats:
    square = np.zeros_like(w)
    for gradient in g:
        gradient = gradient + decay * w
        square = 0.95 * square + 0.05 * gradient**2
        w = w - lr * gradient / (np.sqrt(square) + 1e-8)
    return w


def adam(
    w: Floats, g: Iterator[Floats], lr: float, decay: float, decoupled: bool = False
) -> Floats:
    first, second = np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(g, start=1):
        if decoupled:
            w = w * (1 - lr * decay)
        else:
            gradient = gradient + decay * w
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        w = w - lr * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.99**t)) + 1e-8)
    return w


def doubles(tensors: list[Tensor]) -> Iterator[Floats]:
    return (np.asarray(tensor.double().numpy()) for tensor in tensors)


def as_double(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().double().numpy())


RULES: dict[str, Callable[[Floats, Iterator[Floats], float, float], Floats]] = {
    "sgd": sgd,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": functools.partial(adam, decoupled=True),
}


@pytest.mark.parametrize("name", ["rnn", "gpt-tied"])
@pytest.mark.parametrize("kind", RULES)
def test_steps_follow_the_published_rule_and_only_matrices_decay(kind: str, name: str) -> None:
    model = network(name)
    expected = {
        key: RULES[kind](as_double(p), doubles(gradients(p)), LR / 2, DECAY if p.ndim > 1 else 0.0)
        for key, p in model.named_parameters()
    }
    take_steps(model, optimizers(model, kind), scale=0.5)
    for key, parameter in model.named_parameters():
        np.testing.assert_allclose(as_double(parameter), expected[key], atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", ["rnn", "one-hot", "mlp", "gpt"])
def test_muon_updates_a_hidden_matrix_by_a_nearly_orthogonal_step(name: str) -> None:
    model = network(name)
    hidden = model.hidden_matrices()
    before = [matrix.detach().clone() for matrix in hidden]
    moving = optimizers(model, "muon", weight_decay=0.0, adamw_lr=0.003)
    for parameter in model.parameters():
        parameter.grad = gradients(parameter)[0]
    polar = []
    for matrix in hidden:
        assert matrix.grad is not None
        u, _, vh = torch.linalg.svd(matrix.grad.double(), full_matrices=False)
        polar.append(u @ vh)
    moving.set_lr(1.0)
    for optimizer in moving.each:
        optimizer.step()
    assert hidden
    for matrix, old, ideal in zip(hidden, before, polar, strict=True):
        rows, columns = matrix.shape
        step = (old - matrix.detach()).double() / (LR * math.sqrt(max(1, rows / columns)))
        lengths = torch.linalg.svdvals(step)
        assert lengths.min() > 0.5
        assert lengths.max() < 1.4
        assert (step * ideal).sum() / (step.norm() * ideal.norm()) > 0.97


@pytest.mark.parametrize("name", NETWORKS)
def test_adamw_updates_what_muon_does_not(name: str) -> None:
    model = network(name)
    hidden = {id(matrix) for matrix in model.hidden_matrices()}
    expected = {
        key: RULES["adamw"](as_double(p), doubles(gradients(p)), 0.003, DECAY if p.ndim > 1 else 0)
        for key, p in model.named_parameters()
        if id(p) not in hidden
    }
    assert {
        "head.weight",
        "head.bias",
        "norm.weight",
    } & expected.keys() or "embed.weight" in expected
    take_steps(model, optimizers(model, "muon", adamw_lr=0.003))
    for key, value in expected.items():
        parameter = model.get_parameter(key)
        np.testing.assert_allclose(as_double(parameter), value, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_parameter_is_in_exactly_one_group_and_vectors_do_not_decay(
    kind: str, name: str
) -> None:
    model = network(name)
    groups = [group for each in optimizers(model, kind).each for group in each.param_groups]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (DECAY if parameter.ndim > 1 else 0.0)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_state_of_optimizers_can_be_saved_and_loaded(kind: str) -> None:
    model, other = network("rnn"), network("rnn")
    moving = optimizers(model, kind)
    assert moving.tensors() == {}
    take_steps(model, moving)
    state = moving.tensors()
    names = {key.partition(":")[0] for key in state}
    assert names == {name for name, _ in model.named_parameters()}
    assert dict(moving.shapes()) == {key: tuple(value.shape) for key, value in state.items()}
    assert {value.dtype for value in state.values()} == {torch.float32}
    with torch.no_grad():
        for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
            ours.copy_(theirs)
    loaded = optimizers(other, kind)
    loaded.load({key: value.clone() for key, value in state.items()})
    assert loaded.tensors().keys() == state.keys()
    take_steps(model, moving)
    take_steps(other, loaded)
    for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_every_learning_rate_is_scaled_and_the_first_is_returned() -> None:
    moving = optimizers(network("rnn"), "muon", adamw_lr=0.003)
    for scale in (0.25, 1.0, 0.5):  # of the configured value, not of the last one
        assert moving.set_lr(scale) == LR * scale
        rates = [group["lr"] for each in moving.each for group in each.param_groups]
        assert rates == [LR * scale, 0.003 * scale, 0.003 * scale]
