"""The blocks of a GPT by every variant that this CPU can run, against PyTorch in float64."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.config import GPTConfig
from charlm.kernels.blocks import Blocks
from charlm.kernels.gpt import FusedGPT
from charlm.kernels.variants import Variant
from charlm.models import build_model
from charlm.models.gpt import GPT, Block
from tests.kernels import with_threads
from tests.kernels.newton_schulz import distance

V = 21
# relative; bfloat16 has 8 bits, and errors pass through two blocks. RMSNorm's epsilon differs
# between float32 and float64.
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.03}
KINDS = [
    {"norm": norm, "mlp": mlp, "position": position, "qk_norm": qk_norm, "bias": bias}
    for norm, mlp, (position, qk_norm), bias in itertools.product(
        ("layernorm", "rmsnorm"),
        ("gelu", "relu2", "swiglu"),
        (("rope", True), ("learned", False), ("sinusoidal", True)),
        (True, False),
    )
]


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
    loss = F.cross_entropy(logits.flatten(0, 1).double(), targets.flatten())
    torch.autograd.backward(loss)
    grads = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), grads


def check(ours: Any, theirs: Any, variant: Variant) -> None:
    assert distance(ours[0], theirs[0]) < ROUNDING[variant.dtype]
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in theirs[1].items():
        assert distance(ours[1][name], grad) < ROUNDING[variant.dtype], name


def compare(variant: Variant, B: int, T: int, **options: Any) -> None:
    model, exact = model_of(**options), model_of(**options).double()
    ours = gradients(FusedGPT(model, variant), model, B, T)
    check(ours, gradients(exact, exact, B, T), variant)


@pytest.mark.parametrize("kind", KINDS, ids=lambda it: "-".join(map(str, it.values())))
def test_logits_and_gradients_are_those_of_float64_within_rounding(
    variant: Variant, kind: dict[str, Any]
) -> None:
    compare(variant, 3, 40, **kind)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    ("B", "T", "options"),
    [
        (1, 1, {}),
        (1, 64, {"n_head": 1}),
        (20, 9, {"n_embd": 18, "n_head": 3, "mlp": "swiglu"}),  # heads 6 wide
        (2, 33, {"n_embd": 15, "n_head": 3, "position": "learned", "bias": True}),  # 5 wide
        (5, 64, {"n_embd": 192, "n_head": 3, "norm": "layernorm"}),
        (2, 200, {"context": 200, "tie_weights": True}),  # more rows than a product takes at once
        (35, 64, {"n_layer": 1}),  # more than one chunk of rows
    ],
)
def test_all_shapes_are_right_with_any_number_of_threads(
    variant: Variant, B: int, T: int, options: dict[str, Any], number: int
) -> None:
    with with_threads(number):
        compare(variant, B, T, **options)


def test_no_position_sees_a_later_one(variant: Variant) -> None:
    forward = FusedGPT(model_of(), variant)
    ids = torch.randint(0, V, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, _ = forward(ids, None)
        for t in (1, 15, 31, 32, 63):
            changed = ids.clone()
            changed[:, t:] = (ids[:, t:] + 1) % V
            changed_logits, _ = forward(changed, None)
            assert torch.equal(changed_logits[:, :t], logits[:, :t])
            assert not torch.equal(changed_logits[:, t:], logits[:, t:])


def test_neither_repetition_nor_threads_change_a_bit(variant: Variant) -> None:
    model = model_of(dropout=0.1, position="rope")
    forward, results = FusedGPT(model, variant), []
    for number in (1, 2, 3, 3, 1):
        torch.manual_seed(5)
        x = torch.randn(19, 50, 64, generator=torch.Generator().manual_seed(6), requires_grad=True)
        with with_threads(number):
            out = blocks_of(forward, x)
            torch.autograd.backward(out.square().sum(), inputs=[x, *model.blocks.parameters()])
        grads = [p.grad for p in (x, *model.blocks.parameters()) if p.grad is not None]
        results.append([out, *grads])
        model.zero_grad()
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def blocks_of(forward: FusedGPT, x: Tensor) -> Tensor:
    """The output of a model's blocks for x (B, T, D)."""
    return forward.run_blocks(x, forward.model.position(x, 0)[1])


# --- dropout ---------------------------------------------------------------------------------


class MaskedBlock(nn.Module):
    """A block in which dropout multiplies by the given masks."""

    def __init__(self, block: Block, masks: dict[str, Tensor]) -> None:
        super().__init__()
        self.block, self.masks = block, masks

    def forward(self, x: Tensor, rotation: Tensor | None, _: Any) -> tuple[Tensor, None, None]:
        block, (B, T, D) = self.block, x.shape
        q, k, v = block.attention.project(block.attention_norm(x), rotation)
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf)
        y = scores.softmax(3) * self.masks["weights"].view(B, -1, T, T) @ v
        y = block.attention.out(y.transpose(1, 2).reshape(B, T, D))
        x = x + y * self.masks["attention"].view(B, T, D)
        return x + block.mlp(block.mlp_norm(x)) * self.masks["mlp"].view(B, T, D), None, None


@pytest.mark.parametrize("options", [{}, {"mlp": "swiglu", "bias": True, "norm": "layernorm"}])
def test_dropout_multiplies_by_the_masks_in_both_passes(
    variant: Variant, options: dict[str, Any]
) -> None:
    B, T, p = 5, 40, 0.3
    options |= {"dropout": p, "n_embd": 48, "n_head": 3}
    model, exact = model_of(**options), model_of(**options).double()
    for it in (model, exact):
        it.dropout.p = 0.0  # that of the embedding is PyTorch's
    forward = FusedGPT(model, variant)
    torch.manual_seed(7)
    ours = gradients(forward, model, B, T)
    sizes = {"weights": (B * 3 * T, T), "attention": (B * T, 48), "mlp": (B * T, 48)}
    for i in range(2):
        masks = {name: forward.blocks.mask(p, i, name, *size) for name, size in sizes.items()}
        exact.blocks[i] = MaskedBlock(exact.blocks[i], masks)  # type: ignore[arg-type]
    logits, grads = gradients(functools.partial(exact, keep_state=False), exact, B, T)
    check(ours, (logits, {name.replace(".block.", "."): g for name, g in grads.items()}), variant)


def test_dropout_is_drawn_anew_by_each_call_from_torchs_generator(variant: Variant) -> None:
    model = model_of(dropout=0.5)
    forward, x = FusedGPT(model, variant), torch.ones(2, 8, 64)
    torch.manual_seed(1)
    first, second = blocks_of(forward, x), blocks_of(forward, x)
    torch.manual_seed(1)
    assert torch.equal(blocks_of(forward, x), first)
    assert not torch.equal(second, first)
    model.eval()
    state = torch.get_rng_state()
    assert torch.equal(blocks_of(forward, x), blocks_of(forward, x))
    assert torch.equal(torch.get_rng_state(), state)  # resuming would otherwise differ


@pytest.mark.parametrize("p", [0.05, 0.2, 0.5, 0.9])
def test_masks_are_random(variant: Variant, p: float) -> None:
    blocks = Blocks(variant)
    blocks.seed = 3
    mask = functools.partial(blocks.mask, p)
    first = mask(0, "weights", 2000, 300)
    values = torch.tensor([0.0, 1 / (1 - p)])
    assert torch.allclose(torch.unique(first), values)
    dropped = (first == 0).double()
    blocks.seed = 4
    others = [mask(0, "mlp", 2000, 300), mask(1, "weights", 2000, 300)]
    blocks.seed = 3
    others += [mask(0, "mlp", 2000, 300), mask(1, "weights", 2000, 300)]
    assert torch.equal(mask(0, "weights", 100, 70), first[:100, :70])

    def is_normal(mean: Tensor, n: int, variance: float) -> None:
        """Whether means of n independent numbers are as far from 0 as they should be."""
        z = mean.flatten() / (variance / n) ** 0.5
        assert z.abs().max() < 5.5
        if z.numel() > 100:
            assert abs(z.square().mean() - 1) < 6 * (2 / z.numel()) ** 0.5

    centered, variance = dropped - p, p * (1 - p)
    is_normal(centered.mean(), centered.numel(), variance)
    is_normal(centered.mean(0), 2000, variance)  # each column
    is_normal(centered.mean(1), 300, variance)  # each row
    for lag in (1, 2, 3, 8, 16, 64):  # neighbours, in rows and in columns
        is_normal((centered[:, lag:] * centered[:, :-lag]).mean(), 2000 * (300 - lag), variance**2)
        is_normal((centered[lag:] * centered[:-lag]).mean(), 300 * (2000 - lag), variance**2)
    for other in others:
        is_normal((centered * ((other == 0).double() - p)).mean(), centered.numel(), variance**2)


# --- the forward pass ------------------------------------------------------------------------


def test_under_autocast_the_kernel_gets_float32(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, ids = FusedGPT(model_of(), variant), torch.arange(20)[None]

    def unchanged(x: Tensor, *_: object) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        assert x.dtype == torch.float32
        return x

    monkeypatch.setattr(forward, "blocks", unchanged)
    alone, _ = forward(ids, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(forward(ids, None)[0], alone)


def test_memory_of_a_shorter_batch_is_used_again(variant: Variant) -> None:
    model = model_of()
    forward = FusedGPT(model, variant)
    for B, T in ((3, 64), (2, 17), (4, 50)):
        ours = gradients(forward, model, B, T)
        theirs = gradients(FusedGPT(model, variant), model, B, T)
        assert torch.equal(ours[0], theirs[0])
        assert all(torch.equal(ours[1][name], grad) for name, grad in theirs[1].items())
