"""Muon by charlm's kernel and in batches, against float64 and torch.optim.Muon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from charlm.kernels.muon import MuonKernel, MuonUpdate
from charlm.training.muon import batched_muon, kernel_muon, orthogonal
from charlm.training.rules import Group, Optimizer
from tests.kernels import VARIANTS, load
from tests.kernels.newton_schulz import ROUNDING, distance, iterated, matrix_of

SHAPES = [(32, 32), (64, 96), (96, 64), (256, 64), (64, 256), (512, 128), (1024, 256), (544, 512)]


@pytest.fixture(params=VARIANTS, ids=lambda it: it.name)
def kernel(request: pytest.FixtureRequest) -> MuonKernel:
    return load(MuonKernel, request.param)


LR, MOMENTUM, DECAY = 0.02, 0.9, 0.3


def weights(shapes: list[tuple[int, int]]) -> list[nn.Parameter]:
    return [nn.Parameter(matrix_of(shape)) for shape in shapes]


def groups(matrices: list[nn.Parameter]) -> list[Group]:
    return [{"params": matrices, "weight_decay": DECAY}]


def test_the_steps_are_those_of_pytorch_within_rounding(kernel: MuonKernel) -> None:
    ours = weights(SHAPES[:5])
    assert_steps_as_pytorch(kernel_muon(groups(ours), LR, MOMENTUM, kernel), ours)


class InPyTorch(MuonKernel):
    """The kernel's step as its docstring defines it, on any CPU."""

    def __init__(self) -> None:
        pass

    def steps(self, updates: Sequence[MuonUpdate], momentum: float, decay: float) -> None:
        for it in updates:
            it.average.lerp_(it.gradient, 1 - momentum)
            direction = it.gradient.lerp(it.average, momentum)
            step = orthogonal(direction[None], torch.float32)[0]
            it.weights.copy_(decay * it.weights - it.rate * step)


def test_the_optimizer_gives_the_kernel_all_that_a_step_needs() -> None:
    ours = weights([*SHAPES[:5], (32, 32)])
    assert_steps_as_pytorch(kernel_muon(groups(ours), LR, MOMENTUM, InPyTorch()), ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_steps_in_batches_are_those_of_pytorch_within_rounding(dtype: torch.dtype) -> None:
    ours = weights([*SHAPES[:5], *SHAPES[1:4], (48, 20)])  # one or two of each shape
    assert_steps_as_pytorch(batched_muon(groups(ours), LR, MOMENTUM, dtype), ours)


def assert_steps_as_pytorch(fast: Optimizer, ours: list[nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(1)
    theirs = [nn.Parameter(matrix.detach().clone()) for matrix in ours]
    slow: Any = torch.optim.Muon(theirs, LR, DECAY, MOMENTUM)
    start = [matrix.detach().clone() for matrix in ours]
    for step in range(6):
        for mine, own in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            own.grad = mine.grad.clone()
        for group in (*fast.param_groups, *slow.param_groups):
            group["lr"] = LR / (step + 1)
        fast.step()
        slow.step()
    for mine, own, first in zip(ours, theirs, start, strict=True):
        assert distance(mine.detach() - first, own.detach() - first) < ROUNDING["bf16"]
        averages = (it.state[w]["momentum_buffer"] for it, w in ((fast, mine), (slow, own)))
        torch.testing.assert_close(*averages)


def test_a_matrix_without_a_gradient_does_not_change(kernel: MuonKernel) -> None:
    matrix = nn.Parameter(matrix_of((32, 32)))
    before = matrix.detach().clone()
    kernel_muon(groups([matrix]), LR, MOMENTUM, kernel).step()
    batched_muon(groups([matrix]), LR, MOMENTUM, torch.float32).step()
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("shape", [*SHAPES, (33, 7), (7, 33), (1, 5), (5, 1), (48, 72), (48, 73)])
def test_in_float32_the_factor_is_that_of_float64(shape: tuple[int, int]) -> None:
    """Both by the matrix itself and by its Gram matrix alone."""
    matrices = torch.stack([matrix_of(shape), matrix_of(shape).flip(0)])
    factors = orthogonal(matrices, torch.float32)
    for found, matrix in zip(factors, matrices, strict=True):
        assert distance(found, iterated(matrix)) < ROUNDING["fp32"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 256), (256, 64), (64, 64)])
def test_a_matrix_of_low_rank_or_zeros_stays_finite(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    one = matrix_of((shape[0], 1)) @ matrix_of((1, shape[1]))
    factors = orthogonal(torch.stack([one, torch.zeros(shape), one * 1e-12]), dtype)
    assert factors.isfinite().all()
    assert factors[1].count_nonzero() == 0
    if dtype == torch.float32:
        assert distance(factors[0], iterated(one)) < 1e-3
