"""Muon's kernel in every variant that this CPU can run, against loops in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from charlm.kernels.muon import MuonKernel, MuonUpdate
from charlm.kernels.variants import Variant
from tests.kernels import with_threads
from tests.kernels.newton_schulz import ROUNDING, distance, iterated, matrix_of

SQUARE = [(1, 1), (32, 32), (97, 97), (130, 101), (512, 512)]
WIDE = [(1, 9), (3, 50), (64, 96), (33, 130), (100, 700), (128, 512), (384, 1025)]
SHAPES = [*SQUARE, *WIDE, *((columns, rows) for rows, columns in WIDE)]


@pytest.fixture(scope="module")
def kernel(variant: Variant) -> MuonKernel:
    return MuonKernel(variant)


def factor(kernel: MuonKernel, matrix: Tensor, threads: int = 2) -> Tensor:
    """The kernel's factor of a matrix: a step from zeros without momentum, at learning rate -1."""
    return factors(kernel, [matrix], threads)[0]


def factors(kernel: MuonKernel, matrices: list[Tensor], threads: int) -> list[Tensor]:
    """Those of several matrices, in one call."""
    updates = [
        MuonUpdate(torch.zeros_like(it), it, torch.zeros_like(it), rate=-1.0) for it in matrices
    ]
    with with_threads(threads):
        kernel.steps(updates, momentum=0.0, decay=1.0)
    assert all(torch.equal(it.average, it.gradient) for it in updates)
    return [it.weights for it in updates]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_factor_is_that_of_float64_within_rounding_and_threads_change_no_bit(
    kernel: MuonKernel, shape: tuple[int, int]
) -> None:
    matrix = matrix_of(shape)
    before = matrix.clone()
    first, *others = (factor(kernel, matrix, threads) for threads in (1, 1, 2, 3, 7))
    assert distance(first, iterated(matrix)) < ROUNDING[kernel.precision]
    assert all(torch.equal(first, other) for other in others)
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("shape", [(40, 40), (128, 300), (300, 128), (130, 151), (1100, 384)])
def test_float32_keeps_five_digits_of_the_factor_of_a_random_matrix(
    kernel: MuonKernel, shape: tuple[int, int]
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    error = distance(factor(kernel, matrix), iterated(matrix))
    assert error < {"fp32": 1e-5, "bf16": ROUNDING["bf16"]}[kernel.precision]


def test_many_matrices_at_once_give_the_same_bits_as_one_by_one(kernel: MuonKernel) -> None:
    large = (384, 1025)  # three of one size: two threads take one each, and share the third
    matrices = [matrix_of(shape) for shape in [*SHAPES, large]]
    alone = [factor(kernel, matrix) for matrix in matrices]
    for threads in (1, 2, 3):
        results = factors(kernel, matrices, threads)
        assert all(map(torch.equal, results, alone))


@pytest.mark.parametrize("shape", [(40, 40), (33, 130), (600, 64), (400, 400)])
def test_steps_with_momentum_and_decay_are_those_of_float64(
    kernel: MuonKernel, shape: tuple[int, int]
) -> None:
    momentum, decay = 0.9, 0.97
    generator = torch.Generator().manual_seed(3)
    weights, average = torch.randn(shape, generator=generator), torch.zeros(shape)
    exact_weights, exact_average = weights.double(), average.double()
    start = weights.clone()
    for step in range(4):
        gradient, rate = torch.randn(shape, generator=generator), 0.3 / (step + 1)
        exact_average = momentum * exact_average + (1 - momentum) * gradient
        direction = (1 - momentum) * gradient + momentum * exact_average
        exact_weights = decay * exact_weights - rate * iterated(direction)
        kernel.steps([MuonUpdate(weights, gradient, average, rate)], momentum, decay)
    torch.testing.assert_close(average.double(), exact_average, rtol=1e-5, atol=1e-6)
    assert distance(weights - start, exact_weights - start) < ROUNDING[kernel.precision]


@pytest.mark.parametrize("shape", [(64, 32), (40, 130), (512, 512)])
def test_low_rank_tiny_and_zero_gradients_give_finite_factors(
    kernel: MuonKernel, shape: tuple[int, int]
) -> None:
    one = matrix_of((shape[0], 1)) @ matrix_of((1, shape[1]))
    one /= one.norm()
    for size in (1.0, 1e-9, 1e-30):  # from 1e-7 on, X is less than u / |u|
        found = factor(kernel, size * one)
        assert found.isfinite().all()
        if kernel.precision == "fp32" and size > 1e-20:  # bf16 also has factors of the rounding
            assert distance(found, iterated(size * one)) < 1e-3
    assert not factor(kernel, torch.zeros(shape)).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("shape", [(40, 40), (40, 130)])
def test_a_gradient_that_is_not_finite_shows_in_the_weights(
    kernel: MuonKernel, shape: tuple[int, int], value: float
) -> None:
    gradient = torch.ones(shape)
    gradient[3, 5] = value
    weights = torch.ones(shape)
    kernel.steps([MuonUpdate(weights, gradient, torch.zeros(shape), 0.1)], 0.9, 1.0)
    assert not weights.isfinite().all()
