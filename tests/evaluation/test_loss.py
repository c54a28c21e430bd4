"""The loss against its definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.evaluation.loss import summed_nll
from charlm.units import bits


def batch(vocab: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Random logits (3, 5, V) and targets (3, 5)."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, vocab, generator=generator, dtype=torch.float64) * scale
    return logits, torch.randint(vocab, (3, 5), generator=generator)


def by_hand(logits: Tensor, targets: Tensor) -> float:
    """-ln(e^z_target / sum e^z), one character after the other."""
    total = 0.0
    for z, target in zip(logits.double().flatten(0, 1).tolist(), targets.flatten(), strict=True):
        largest = max(z)
        total += math.log(math.fsum(math.exp(x - largest) for x in z)) + largest - z[int(target)]
    return total


@pytest.mark.parametrize("vocab", [2, 65, 256])
@pytest.mark.parametrize("level", [0.0, -7.5, 1e4])
def test_uniform_logits_cost_ln_v_per_character(vocab: int, level: float) -> None:
    _, targets = batch(vocab)
    loss = summed_nll(torch.full((3, 5, vocab), level), targets).item() / targets.numel()
    assert loss == pytest.approx(math.log(vocab), rel=1e-6)
    assert bits(loss) == pytest.approx(math.log2(vocab), rel=1e-6)


@pytest.mark.parametrize("scale", [0.1, 3, 1000])
def test_it_is_the_sum_over_all_characters_of_a_batch(scale: float) -> None:
    logits, targets = batch(11, scale)
    assert summed_nll(logits, targets).item() == pytest.approx(by_hand(logits, targets), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_softmax_is_in_float32_for_every_type_of_logits(dtype: torch.dtype) -> None:
    logits, targets = batch(11)
    rounded = logits.to(dtype)
    loss = summed_nll(rounded, targets)
    assert (loss.dtype, loss.shape) == (torch.float32, ())
    assert loss.item() == pytest.approx(by_hand(rounded, targets), rel=1e-6)


def test_the_layout_of_the_logits_in_memory_does_not_matter() -> None:
    """A recurrent network computes (T, B, V) and returns a transposed view."""
    logits, targets = batch(11)
    time_major = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert not time_major.is_contiguous()
    assert torch.equal(summed_nll(time_major, targets), summed_nll(logits, targets))


def test_its_gradient_is_the_softmax_minus_the_one_hot_targets() -> None:
    logits, targets = batch(11)
    [gradient] = torch.autograd.grad(summed_nll(logits.requires_grad_(), targets), logits)
    one_hot = F.one_hot(targets, 11)
    torch.testing.assert_close(gradient, logits.softmax(dim=2) - one_hot, rtol=0, atol=1e-6)
