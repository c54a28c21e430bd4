"""The GPT with charlm's kernel, against PyTorch in float64. Skipped on a CPU without AMX."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.config import GPTConfig
from charlm.kernels.block import BlockKernel
from charlm.kernels.fused import FusedGPT
from charlm.models import build_model
from charlm.models.gpt import GPT
from tests.kernels import loaded

V = 21
ROUNDING = 0.03  # relative: bfloat16 has 8 bits, and errors pass through two blocks
OPTIONS = [
    {"norm": norm, "mlp": mlp, "position": position, "qk_norm": qk_norm}
    for norm, mlp, position, qk_norm in itertools.product(
        ("layernorm", "rmsnorm"),
        ("gelu", "relu2"),
        ("rope", "learned", "sinusoidal"),
        (True, False),
    )
]


@pytest.fixture(scope="module")
def kernel() -> BlockKernel:
    return loaded(BlockKernel)


def model_of(**options: Any) -> GPT:
    """A model in which every weight matters: gains differ from 1, and matrices are not small."""
    config = GPTConfig(**{"n_layer": 2, "n_head": 2, "n_embd": 64, "context": 64, **options})
    model = build_model(config, V, seed=3)
    assert isinstance(model, GPT)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
            else:
                parameter.mul_(3)
    return model


def gradients(forward: Any, model: GPT, B: int, T: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits of a random batch, and the gradients with respect to all weights."""
    generator = torch.Generator().manual_seed(B + T)
    ids, targets = torch.randint(0, V, (2, B, T), generator=generator)
    model.zero_grad()
    logits, _ = forward(ids, None)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), targets.flatten())
    torch.autograd.backward(loss)
    grads = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), grads


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def check(kernel: BlockKernel, B: int, T: int, **options: Any) -> None:
    model, exact = model_of(**options), model_of(**options).double()
    ours = gradients(FusedGPT(model, kernel), model, B, T)
    theirs = gradients(exact, exact, B, T)
    assert distance(ours[0], theirs[0]) < ROUNDING
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in theirs[1].items():
        assert distance(ours[1][name], grad) < ROUNDING, name


@pytest.mark.parametrize("options", OPTIONS, ids=lambda it: "-".join(map(str, it.values())))
def test_logits_and_gradients_are_those_of_float64_within_rounding(
    kernel: BlockKernel, options: dict[str, Any]
) -> None:
    check(kernel, 3, 64, **options)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("B", "T", "options"),
    [
        (1, 32, {"context": 32}),
        (7, 32, {"context": 32, "n_head": 1}),
        (5, 96, {"context": 96, "n_embd": 192, "n_head": 3}),
        (2, 160, {"context": 160, "tie_weights": True}),
        (4, 1, {}),
        (4, 33, {"position": "learned"}),
    ],
)
def test_logits_and_gradients_are_right_for_all_shapes_and_threads(
    kernel: BlockKernel, B: int, T: int, options: dict[str, Any], threads: int
) -> None:
    used = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        check(kernel, B, T, **options)
    finally:
        torch.set_num_threads(used)


def test_no_position_sees_a_later_one(kernel: BlockKernel) -> None:
    forward = FusedGPT(model_of(), kernel)
    ids = torch.randint(0, V, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, _ = forward(ids, None)
        for t in (1, 31, 32, 63):
            changed = ids.clone()
            changed[:, t:] = (ids[:, t:] + 1) % V
            changed_logits, _ = forward(changed, None)
            assert torch.equal(changed_logits[:, :t], logits[:, :t])
            assert not torch.equal(changed_logits[:, t:], logits[:, t:])


def test_repeated_calls_give_the_same_bits(kernel: BlockKernel) -> None:
    model, used = model_of(), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        first, *again = (gradients(FusedGPT(model, kernel), model, 7, 64) for _ in range(4))
    finally:
        torch.set_num_threads(used)
    for logits, grads in again:
        assert torch.equal(logits, first[0])
        assert all(torch.equal(grads[name], grad) for name, grad in first[1].items())


def test_under_autocast_the_kernel_gets_float32() -> None:
    class Unchanged(BlockKernel):
        """Returns its input. Runs on any CPU."""

        def __init__(self) -> None:
            pass

        def block(self, x: Tensor, *_: object) -> Tensor:
            assert not torch.is_autocast_enabled("cpu")
            assert x.dtype == torch.float32
            return x

    forward, ids = FusedGPT(model_of(), Unchanged()), torch.arange(20)[None]
    alone, _ = forward(ids, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(forward(ids, None)[0], alone)


@pytest.mark.parametrize(
    ("options", "supported"),
    [
        ({}, True),
        ({"bias": True}, False),
        ({"dropout": 0.1}, False),
        ({"mlp": "swiglu"}, False),
        ({"context": 48}, False),
        ({"n_head": 4}, False),  # heads 16 wide
        ({"n_embd": 128, "n_head": 4}, True),
    ],
)
def test_supported_models(options: dict[str, Any], supported: bool) -> None:
    assert FusedGPT.supports(model_of(**options)) == supported
