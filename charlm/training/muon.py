"""Muon (Jordan et al. 2024): torch.optim.Muon's rule and state, computed faster."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from charlm.kernels.muon import COEFFICIENTS, MuonKernel, MuonUpdate
from charlm.training.rules import Group, Optimizer, Tensors

A, B, C = COEFFICIENTS  # a, b and c of the polynomial in `orthogonal`
KEYS = ("momentum_buffer",)  # the averages of the gradients
STEPS, EPS = 5, 1e-7  # as in torch.optim.Muon
GRAM_PAYS = 1.5  # columns per row from which the iteration on the Gram matrix needs fewer products


def make_muon(
    groups: Sequence[Group],
    lr: float,
    momentum: float,
    kernel: MuonKernel | None,
    dtype: torch.dtype,
) -> Optimizer:
    """Muon by charlm's own CPU kernel, or without one by PyTorch, with products of this dtype."""
    if kernel:
        return kernel_muon(groups, lr, momentum, kernel)
    return batched_muon(groups, lr, momentum, dtype)


def kernel_muon(
    groups: Sequence[Group], lr: float, momentum: float, kernel: MuonKernel
) -> Optimizer:
    """Muon by charlm's own CPU kernel."""

    def update(
        weights: Tensors, gradients: Tensors, averages: Tensors, lr: float, weight_decay: float
    ) -> None:
        updates = [
            MuonUpdate(matrix, gradient, average, _scaled(lr, matrix))
            for matrix, gradient, average in zip(weights, gradients, averages, strict=True)
        ]
        kernel.steps(updates, momentum, 1 - lr * weight_decay)

    return Optimizer(groups, lr, KEYS, update)


def batched_muon(
    groups: Sequence[Group], lr: float, momentum: float, dtype: torch.dtype
) -> Optimizer:
    """Muon that computes the orthogonal factors of all matrices of one shape in one batch.

    Args:
        dtype: of the products.
    """

    def update(
        weights: Tensors, gradients: Tensors, averages: Tensors, lr: float, weight_decay: float
    ) -> None:
        for same in _by_shape(zip(weights, gradients, averages, strict=True)):
            matrices, slopes, means = map(list, zip(*same, strict=True))
            torch._foreach_lerp_(means, slopes, 1 - momentum)
            directions = torch._foreach_lerp(slopes, means, momentum)  # Nesterov's
            factors = orthogonal(torch.stack(directions), dtype).float().unbind()
            torch._foreach_mul_(matrices, 1 - lr * weight_decay)
            torch._foreach_add_(matrices, factors, alpha=-_scaled(lr, matrices[0]))

    return Optimizer(groups, lr, KEYS, update)


def _scaled(lr: float, matrix: Tensor) -> float:
    """Return the learning rate for a matrix (m, n): a tall one takes longer steps."""
    rows, columns = matrix.shape
    return lr * math.sqrt(max(1, rows / columns))


def _by_shape(updates: Iterable[tuple[Tensor, ...]]) -> list[list[tuple[Tensor, ...]]]:
    """Return what is needed to update each matrix in lists, one for each shape."""
    lists: dict[torch.Size, list[tuple[Tensor, ...]]] = {}
    for tensors in updates:
        lists.setdefault(tensors[0].shape, []).append(tensors)
    return list(lists.values())


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Return nearly orthogonal factors of `matrices` (N, m, n), computed in `dtype`.

    Five Newton-Schulz iterations X <- (a I + b G + c G^2) X with G = X X^T (Jordan et al. 2024).
    """
    x = matrices.to(dtype)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT.contiguous()  # on a CPU, baddbmm takes twice as long for transposed matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=EPS)
    if dtype == torch.float32 and x.shape[2] > GRAM_PAYS * x.shape[1]:
        x = _through_gram(x)
    else:
        for _ in range(STEPS):
            gram = torch.bmm(x, x.mT)  # `@` is slower for one matrix in bfloat16
            x = torch.baddbmm(x, _polynomial(gram), x, beta=A)
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
