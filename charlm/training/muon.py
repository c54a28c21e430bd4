"""Muon (Jordan et al. 2024): torch.optim.Muon's rule and state, computed faster."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from charlm.kernels.muon import COEFFICIENTS, MuonKernel, MuonUpdate

A, B, C = COEFFICIENTS  # a, b and c of the polynomial in `orthogonal`
STEPS, EPS = 5, 1e-7  # as in torch.optim.Muon
GRAM_PAYS = 1.5  # columns per row from which the iteration on the Gram matrix needs fewer products


class FastMuon(torch.optim.Muon):
    """Muon by charlm's own CPU kernel."""

    def __init__(self, params: ParamsT, *, kernel: MuonKernel, **settings: Any) -> None:
        super().__init__(params, **settings)
        self._kernel = kernel

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix: Nesterov momentum, orthogonal factor, decoupled weight decay."""
        assert closure is None
        for group in self.param_groups:
            lr = float(group["lr"])
            updates = [
                MuonUpdate(it, it.grad, _average(self, it), _scaled(lr, it))
                for it in group["params"]
                if it.grad is not None
            ]
            self._kernel.steps(updates, group["momentum"], 1 - lr * group["weight_decay"])


class BatchedMuon(torch.optim.Muon):
    """Muon that computes the orthogonal factors of all matrices of one shape in one batch.

    Args:
        dtype: of the products.
    """

    def __init__(self, params: ParamsT, *, dtype: torch.dtype, **settings: Any) -> None:
        super().__init__(params, **settings)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix: Nesterov momentum, orthogonal factor, decoupled weight decay."""
        assert closure is None
        for group in self.param_groups:
            lr = float(group["lr"])
            for matrices in _by_shape(group["params"]):
                directions = torch.stack(self._directions(matrices, group))  # (N, m, n)
                factors = orthogonal(directions, self._dtype).float().unbind()
                torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
                torch._foreach_add_(matrices, factors, alpha=-_scaled(lr, matrices[0]))

    def _directions(self, matrices: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Update the averages of the gradients; return the directions of Nesterov momentum."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        averages = [_average(self, matrix) for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        return list(torch._foreach_lerp(gradients, averages, group["momentum"]))


def _average(optimizer: torch.optim.Muon, matrix: Tensor) -> Tensor:
    """Return the average of a matrix's gradients: the momentum buffer, at first zeros."""
    state: dict[str, Tensor] = optimizer.state[matrix]
    if not state:
        state["momentum_buffer"] = torch.zeros_like(matrix)
    return state["momentum_buffer"]


def _scaled(lr: float, matrix: Tensor) -> float:
    """Return the learning rate for a matrix (m, n): a tall one takes longer steps."""
    rows, columns = matrix.shape
    return lr * math.sqrt(max(1, rows / columns))


def _by_shape(matrices: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the matrices that have a gradient in lists of one shape each."""
    ready = sorted((it for it in matrices if it.grad is not None), key=lambda it: tuple(it.shape))
    return (list(same) for _, same in groupby(ready, key=lambda it: tuple(it.shape)))


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Return nearly orthogonal factors of `matrices` (N, m, n), computed in `dtype`.

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
    """Return b G + c G^2 for G (N, m, m)."""
    return torch.baddbmm(gram, gram, gram, beta=B, alpha=C)


def _through_gram(x: Tensor) -> Tensor:
    """Iterate on the Gram matrix G (N, m, m) alone, then multiply x (N, m, n) by the result.

    An iteration multiplies X by P = a I + b G + c G^2, and so G by P from both sides. This squares
    the condition number. float32 has enough digits for that, bfloat16 has not.
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
