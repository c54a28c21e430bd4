"""The iteration of Muon in float64, and matrices to try it on."""

from __future__ import annotations

import torch
from torch import Tensor

from charlm.kernels.muon import COEFFICIENTS

ROUNDING = {"bf16": 0.03, "fp32": 2e-4}  # relative, of five iterations


def matrix_of(shape: tuple[int, int]) -> Tensor:
    """A random matrix whose columns have norms over three orders of magnitude."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator) * torch.logspace(-3, 0, shape[1])


def iterated(matrix: Tensor) -> Tensor:
    """The orthogonal factor by the iteration of the paper in float64."""
    a, b, c = COEFFICIENTS
    x = matrix.double()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):  # a tall matrix is multiplied from the other side
        gram = x @ x.T if len(x) <= x.shape[1] else x.T @ x
        update = b * gram + c * gram @ gram
        x = a * x + (update @ x if len(x) <= x.shape[1] else x @ update)
    return x  # type: ignore[no-any-return]


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The relative distance of two tensors."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())
