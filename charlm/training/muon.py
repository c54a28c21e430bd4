"""Muon (Jordan et al. 2024): the steps of torch.optim.Muon, faster, with its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from charlm.kernels.newton_schulz import Moved, NewtonSchulz


class FastMuon(torch.optim.Muon):
    """By our own kernel for CPUs, for matrices that it fits."""

    kernel: NewtonSchulz

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix: momentum (Nesterov), its orthogonal factor, decoupled decay."""
        assert closure is None
        for group in self.param_groups:
            lr, matrices = float(group["lr"]), []
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                rows, columns = matrix.shape
                rate = lr * math.sqrt(max(1, rows / columns))
                matrices.append(Moved(matrix, matrix.grad, state["momentum_buffer"], rate))
            self.kernel.steps(matrices, group["momentum"], 1 - lr * group["weight_decay"])


class BatchedMuon(torch.optim.Muon):
    """Matrices of one shape together: for GPUs, where each small product costs a launch."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix: momentum (Nesterov), its orthogonal factor, decoupled decay."""
        assert closure is None
        for group in self.param_groups:
            lr = float(group["lr"])
            for matrices in _alike(group["params"]):
                rows, columns = matrices[0].shape
                rate = lr * math.sqrt(max(1, rows / columns))
                factors = _orthogonal(torch.stack(self._averages(matrices, group)), group)
                torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
                torch._foreach_add_(matrices, factors.float().unbind(), alpha=-rate)

    def _averages(self, matrices: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The gradients averaged with those before, a step ahead as Nesterov has it."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        for matrix, gradient in zip(matrices, gradients, strict=True):
            if not self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(gradient)
        averages = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        return list(torch._foreach_lerp(gradients, averages, group["momentum"]))


def _alike(matrices: list[Tensor]) -> Iterator[list[Tensor]]:
    """Those that have a gradient, by their shapes."""
    moved = sorted((it for it in matrices if it.grad is not None), key=lambda it: tuple(it.shape))
    return (list(them) for _, them in groupby(moved, key=lambda it: tuple(it.shape)))


def _orthogonal(matrices: Tensor, group: dict[str, Any]) -> Tensor:
    """The orthogonal factors of matrices (N, R, C), about, in bfloat16: Newton-Schulz iterations
    with the coefficients that torch.optim.Muon has."""
    a, b, c = group["ns_coefficients"]
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
