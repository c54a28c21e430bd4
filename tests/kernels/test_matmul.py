"""Products of matrices by every variant that this CPU can run, against float64."""

from __future__ import annotations

import pytest
import torch

from charlm.kernels.matmul import Matmul
from charlm.kernels.variants import Variant
from tests.kernels import with_threads

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("M", "N", "K"), [(1, 1, 1), (3, 17, 5), (32, 48, 64), (33, 50, 70), (100, 7, 129), (70, 96, 1)]
)
def test_the_product_is_that_of_float64_within_rounding(
    variant: Variant, M: int, N: int, K: int, threads: int
) -> None:
    matmul = Matmul(variant)
    generator = torch.Generator().manual_seed(M)
    A, B = torch.randn(M, K, generator=generator), torch.randn(K, N, generator=generator)
    exact = A.double() @ B.double()
    results = []
    with with_threads(threads):
        for a in (A, A.t().contiguous().t()):
            for b in (B, B.t().contiguous().t()):
                results.append(matmul(a, b))
    error = (results[0].double() - exact).norm() / (A.abs() @ B.abs()).double().norm()
    assert error < ROUNDING[variant.dtype]
    for other in results[1:]:  # the layout of a factor does not change a bit
        assert torch.equal(other, results[0])


def test_a_row_is_the_same_in_any_number_of_rows_and_threads(variant: Variant) -> None:
    matmul = Matmul(variant)
    generator = torch.Generator().manual_seed(5)
    A, B = torch.randn(77, 64, generator=generator), torch.randn(64, 50, generator=generator)
    whole = matmul(A, B)
    for rows in (1, 2, 7, 16, 33):
        assert torch.equal(matmul(A[:rows].contiguous(), B), whole[:rows])


def test_what_is_not_a_number_stays(variant: Variant) -> None:
    matmul = Matmul(variant)
    A, B = torch.zeros(40, 40), torch.ones(40, 40)
    A[3, 5], A[4, 6] = float("nan"), float("inf")
    out = matmul(A, B)
    assert torch.isnan(out[3]).all()
    assert torch.isinf(out[4]).all()
    assert torch.equal(out[5:], torch.zeros(35, 40))
