"""Muon (Jordan et al. 2024): the steps of torch.optim.Muon, faster, with its memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from charlm.kernels.newton_schulz import COEFFICIENTS, Moved, NewtonSchulz

A, B, C = COEFFICIENTS
STEPS, EPS = 5, 1e-7  # as torch.optim.Muon has them
GRAM_PAYS = 1.5  # columns for each row, from which on its products are fewer


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
    """Matrices of one shape together, each made nearly orthogonal in `dtype`."""

    def __init__(self, params: ParamsT, *, dtype: torch.dtype, **settings: Any) -> None:
        super().__init__(params, **settings)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every matrix: momentum (Nesterov), its orthogonal factor, decoupled decay."""
        assert closure is None
        for group in self.param_groups:
            lr = float(group["lr"])
            for matrices in _alike(group["params"]):
                rows, columns = matrices[0].shape
                rate = lr * math.sqrt(max(1, rows / columns))
                averages = torch.stack(self._averages(matrices, group))
                factors = orthogonal(averages, self._dtype).float().unbind()
                torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
                torch._foreach_add_(matrices, factors, alpha=-rate)

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


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearly orthogonal factors of `matrices` (N, m, n), computed in `dtype`.

    Five Newton-Schulz iterations X <- (a I + b G + c G^2) X with G = X X^T (Jordan et al. 2024).
    """
    x = matrices.to(dtype)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    if dtype == torch.float32 and x.shape[2] > GRAM_PAYS * x.shape[1]:
        x = _through_gram(x)
    else:
        for _ in range(STEPS):
            x = torch.baddbmm(x, _polynomial(x @ x.mT), x, beta=A)
    return x.mT if tall else x


def _polynomial(gram: Tensor) -> Tensor:
    """b G + c G^2 of G (N, m, m)."""
    return torch.baddbmm(gram, gram, gram, beta=B, alpha=C)


def _through_gram(x: Tensor) -> Tensor:
    """The same iterations on the Gram matrix G (N, m, m) alone, and one product with x (N, m, n).

    Each multiplies X by P = a I + b G + c G^2, and so G by P from both sides. This squares the
    condition number, which float32 has the digits for and bfloat16 has not.
    """
    gram, factor = x @ x.mT, None
    for step in range(STEPS):
        p = _polynomial(gram)
        p.diagonal(dim1=1, dim2=2).add_(A)
        factor = p if factor is None else p @ factor
        if step + 1 < STEPS:
            gram = p @ (gram @ p)
    assert factor is not None
    return factor @ x
