"""The update rules of SGD, RMSProp, Adam and AdamW."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

Group = dict[str, Any]  # params, weight_decay and lr, as in torch.optim


class Optimizer(ABC):
    """Updates parameters from their gradients.

    It has the attributes of torch.optim.Optimizer, but does not inherit from it. The first use of
    such a class imports torch._dynamo, which takes longer than a second. The functions with the
    update rules, which are used here, do not.

    Args:
        groups: each with its `params` and their `weight_decay`.
        lr: the learning rate of all groups.
        keys: the names of the tensors that are kept for a parameter.

    Attributes:
        param_groups: the groups; `lr` of each may be changed.
        state: the tensors that are kept, by parameter and name; {} before the first step.
        keys: as above.
    """

    def __init__(self, groups: Sequence[Group], lr: float, keys: Sequence[str]) -> None:
        self.param_groups: list[Group] = [group | {"lr": lr} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.keys = keys

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            if ready := [it for it in group["params"] if it.grad is not None]:
                kept = [[self._state(it)[key] for it in ready] for key in self.keys]
                self._update(group, ready, [it.grad for it in ready], *kept)

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                key: parameter.new_zeros(shape_of_state(key, parameter)) for key in self.keys
            }
        return self.state[parameter]

    @abstractmethod
    def _update(
        self, group: Group, weights: list[Tensor], gradients: list[Tensor], *kept: list[Tensor]
    ) -> None:
        """Update weights of a group; `kept` has a list for each of the keys."""


def shape_of_state(key: str, parameter: Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor that is kept for a parameter: () for the number of steps."""
    return () if key == "step" else tuple(parameter.shape)


class SGD(Optimizer):
    """Gradient descent with momentum (Polyak 1964)."""

    def __init__(self, groups: Sequence[Group], lr: float, momentum: float) -> None:
        super().__init__(groups, lr, ["momentum_buffer"] if momentum else [])
        self._momentum = momentum

    def _update(
        self, group: Group, weights: list[Tensor], gradients: list[Tensor], *kept: list[Tensor]
    ) -> None:
        sgd(
            weights,
            gradients,
            [*kept[0]] if kept else [None] * len(weights),
            fused=True,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            momentum=self._momentum,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


class RMSProp(Optimizer):
    """RMSProp (Tieleman and Hinton 2012)."""

    def __init__(self, groups: Sequence[Group], lr: float, alpha: float, eps: float) -> None:
        super().__init__(groups, lr, ["step", "square_avg"])
        self._alpha, self._eps = alpha, eps

    def _update(
        self, group: Group, weights: list[Tensor], gradients: list[Tensor], *kept: list[Tensor]
    ) -> None:
        steps, squares = kept
        rmsprop(
            weights,
            gradients,
            squares,
            [],
            [],
            steps,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            alpha=self._alpha,
            eps=self._eps,
            momentum=0.0,
            centered=False,
        )


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015).

    Args:
        decoupled: AdamW instead (Loshchilov and Hutter 2019): the decay is not added to the
            gradient.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        decoupled: bool,
    ) -> None:
        super().__init__(groups, lr, ["step", "exp_avg", "exp_avg_sq"])
        self._rule = adamw if decoupled else adam
        self._betas, self._eps = betas, eps

    def _update(
        self, group: Group, weights: list[Tensor], gradients: list[Tensor], *kept: list[Tensor]
    ) -> None:
        steps, averages, squares = kept
        self._rule(
            weights,
            gradients,
            averages,
            squares,
            [],
            steps,
            fused=True,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            beta1=self._betas[0],
            beta2=self._betas[1],
            eps=self._eps,
            amsgrad=False,
            maximize=False,
        )
