"""The updates of charlm.scratch.sgd against those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from charlm.scratch.sgd import SGD, Adagrad, Adam, RMSProp, clip
from charlm.scratch.trainer import Optimizer

RNG = np.random.default_rng(1)
PAIRS: list[tuple[Optimizer, Callable[..., torch.optim.Optimizer], dict[str, Any]]] = [
    (SGD(momentum=0), torch.optim.SGD, {}),
    (SGD(), torch.optim.SGD, {"momentum": 0.9}),
    (Adagrad(), torch.optim.Adagrad, {"eps": 1e-10}),
    (RMSProp(), torch.optim.RMSprop, {"alpha": 0.99, "eps": 1e-8}),
    (Adam(), torch.optim.Adam, {"betas": (0.9, 0.99), "eps": 1e-8}),
]


@pytest.mark.parametrize(("ours", "make", "settings"), PAIRS)
def test_the_steps_equal_those_of_pytorch(
    ours: Optimizer, make: Callable[..., torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    weights = {"W": RNG.normal(size=(3, 4)), "b": RNG.normal(size=3)}
    tensors = {name: torch.tensor(w, requires_grad=True) for name, w in weights.items()}
    theirs = make(tensors.values(), lr=0.1, **settings)
    for lr in (0.1, 0.05, 0.02, 0.02):
        grads = {name: RNG.normal(size=w.shape) for name, w in weights.items()}
        ours.update(weights, grads, lr)
        theirs.param_groups[0]["lr"] = lr
        for name, gradient in grads.items():
            tensors[name].grad = torch.tensor(gradient)
        theirs.step()
        for name, w in weights.items():
            np.testing.assert_allclose(w, tensors[name].detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("limit", "factor"), [(2.5, 0.5), (5.0, 1), (10, 1)])
def test_clipping_keeps_the_direction(limit: float, factor: float) -> None:
    clipped = clip({"W": np.array([[3.0, 0.0]]), "b": np.array([4.0])}, limit)
    np.testing.assert_allclose(clipped["W"], [[3 * factor, 0]], rtol=1e-9)
    np.testing.assert_allclose(clipped["b"], [4 * factor], rtol=1e-9)
