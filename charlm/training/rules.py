"""The update rules of SGD, RMSProp, Adam and AdamW."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import adam, adamw, rmsprop, sgd

Group = dict[str, Any]  # params, weight_decay and lr, as in torch.optim
Tensors = list[Tensor]


class Optimizer:
    """Updates parameters from their gradients.

    It has the attributes of torch.optim.Optimizer, but does not inherit from it. The first use of
    such a class imports torch._dynamo, which takes longer than a second. The functions with the
    update rules, which are called here, do not.

    Args:
        groups: each with its `params` and their `weight_decay`.
        lr: the learning rate of all groups.
        keys: the names of the tensors that are kept for a parameter.
        update: changes a list of weights in place, given a list of their gradients, a list of kept
            tensors for each of the keys, and `lr` and `weight_decay`.

    Attributes:
        param_groups: the groups; `lr` of each may be changed.
        state: the tensors that are kept, by parameter and name; {} before the first step.
        keys: as above.
    """

    def __init__(
        self, groups: Sequence[Group], lr: float, keys: Sequence[str], update: Callable[..., None]
    ) -> None:
        self.param_groups: list[Group] = [group | {"lr": lr} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.keys, self._update = keys, update

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            if ready := [it for it in group["params"] if it.grad is not None]:
                states = [self._state(it) for it in ready]
                kept = [[state[key] for state in states] for key in self.keys]
                settings = {name: group[name] for name in ("lr", "weight_decay")}
                self._update(ready, [it.grad for it in ready], *kept, **settings)

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                key: parameter.new_zeros(shape_of_state(key, parameter)) for key in self.keys
            }
        return self.state[parameter]


def shape_of_state(key: str, parameter: Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor that is kept for a parameter: () for the number of steps."""
    return () if key == "step" else tuple(parameter.shape)


def make_sgd(groups: Sequence[Group], lr: float, momentum: float) -> Optimizer:
    """Gradient descent with momentum (Polyak 1964)."""
    rule = functools.partial(
        sgd.sgd, fused=True, momentum=momentum, dampening=0.0, nesterov=False, maximize=False
    )

    def update(weights: Tensors, gradients: Tensors, *kept: Tensors, **group: Any) -> None:
        averages: list[Tensor | None] = [*kept[0]] if kept else [None] * len(weights)
        rule(weights, gradients, averages, **group)

    return Optimizer(groups, lr, ["momentum_buffer"] if momentum else [], update)


def make_rmsprop(groups: Sequence[Group], lr: float, alpha: float, eps: float) -> Optimizer:
    """RMSProp (Tieleman and Hinton 2012)."""
    rule = functools.partial(rmsprop.rmsprop, alpha=alpha, eps=eps, momentum=0.0, centered=False)

    def update(
        weights: Tensors, gradients: Tensors, steps: Tensors, squares: Tensors, **group: Any
    ) -> None:
        rule(weights, gradients, squares, [], [], steps, **group)

    return Optimizer(groups, lr, ["step", "square_avg"], update)


def make_adam(
    groups: Sequence[Group], lr: float, betas: tuple[float, float], eps: float, decoupled: bool
) -> Optimizer:
    """Adam (Kingma and Ba 2015).

    Args:
        decoupled: AdamW instead (Loshchilov and Hutter 2019): the decay is not added to the
            gradient.
    """
    rule = functools.partial(
        adamw.adamw if decoupled else adam.adam,
        fused=True,
        beta1=betas[0],
        beta2=betas[1],
        eps=eps,
        amsgrad=False,
        maximize=False,
    )

    def update(
        weights: Tensors,
        gradients: Tensors,
        steps: Tensors,
        averages: Tensors,
        squares: Tensors,
        **group: Any,
    ) -> None:
        rule(weights, gradients, averages, squares, [], steps, **group)

    return Optimizer(groups, lr, ["step", "exp_avg", "exp_avg_sq"], update)
