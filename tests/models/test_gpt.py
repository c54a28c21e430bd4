"""The GPT against its equations, and the tests that every model must pass."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from charlm.config import GPTConfig
from charlm.models import GPT, CharModel, build_model
from charlm.models.gpt import Block
from charlm.scratch import gpt
from charlm.scratch.functions import cross_entropy
from tests.models import (
    ALMOST_SURE,
    SEED,
    VOCAB,
    ModelContract,
    assert_gradients,
    assert_near,
    exact,
    reference,
    texts,
    weights_of,
    with_dropout,
)

GRID: dict[str, tuple[Any, ...]] = {
    "position": ("learned", "sinusoidal", "rope"),
    "norm": ("layernorm", "rmsnorm"),
    "mlp": ("gelu", "relu2", "swiglu"),
    "qk_norm": (False, True),
    "bias": (False, True),
    "tie_weights": (False, True),
}
WIDTH, HEADS, LAYERS, CONTEXT = 12, 3, 2, 8


def configure(**settings: Any) -> GPTConfig:
    sizes = {"n_embd": WIDTH, "n_head": HEADS, "n_layer": LAYERS, "context": CONTEXT}
    return GPTConfig.model_validate({**sizes, **settings})


CONFIGS = {
    "-".join(
        (f"{'' if value else 'no_'}{name}" if isinstance(value, bool) else value)
        for name, value in zip(GRID, values, strict=True)
    ): configure(**dict(zip(GRID, values, strict=True)))
    for values in product(*GRID.values())
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_position = pytest.mark.parametrize("position", GRID["position"])


def build(config: GPTConfig) -> GPT:
    model = build_model(config, VOCAB, SEED)
    assert isinstance(model, GPT)
    return model


def exact_gpt(config: GPTConfig) -> CharModel:
    """`exact`, with the table of positions, which a model keeps in float32, also in float64."""
    model = exact(build(config))
    for _, table in model.named_buffers():
        expected = torch.from_numpy(position_table(config))
        torch.testing.assert_close(table, expected, rtol=0, atol=1e-6)
        table.copy_(expected)
    return model


def position_table(config: GPTConfig) -> reference.Array:
    """Sinusoids (context, D), or rotary cosines and sines (2, context, K/2)."""
    if config.position == "sinusoidal":
        return reference.sinusoids(config.context, config.n_embd)
    angles = reference.angles(config.context, config.n_embd // config.n_head)
    return np.stack([np.cos(angles), np.sin(angles)])


@every_config
def test_logits_follow_the_equations(config: GPTConfig) -> None:
    model, ids = exact_gpt(config), texts(2, CONTEXT)
    expected, _ = reference.EveryGPT(config, weights_of(model)).forward(ids.numpy())
    assert_near(model(ids)[0], expected, 1e-10)


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT - 3])
def test_autograd_gives_the_hand_derived_gradients(length: int) -> None:
    config = configure(position="learned", norm="layernorm", mlp="gelu", qk_norm=False, bias=True)
    model, ids, targets = exact_gpt(config), texts(2, length), texts(2, length, seed=2)
    torch.autograd.backward(F.cross_entropy(model(ids)[0].flatten(0, 1), targets.flatten()))

    scratch = gpt.GPT(weights_of(model), HEADS)
    _, d_logits = cross_entropy(scratch.forward(ids.numpy())[0], targets.numpy())
    assert_gradients(model, scratch.backward(d_logits))


# --- what every model must do ----------------------------------------------------------------


class TestGPT(ModelContract):
    @pytest.fixture(params=product(GRID["position"], GRID["qk_norm"]), ids=str)
    def config(self, request: pytest.FixtureRequest) -> GPTConfig:
        position, qk_norm = request.param
        return configure(position=position, qk_norm=qk_norm)


@every_position
def test_the_state_is_a_cache_of_keys_and_values(position: str) -> None:
    model = exact_gpt(configure(position=position))
    _, state = model(texts(2, 3))
    _, longer = model(texts(2, 2), state)
    assert [part.shape for part in longer] == [(2, HEADS, 5, WIDTH // HEADS)] * 2 * LAYERS
    for part, before in zip(longer, state, strict=True):
        assert torch.equal(part[:, :, :3], before)


@every_position
def test_it_reads_no_more_characters_than_its_context(position: str) -> None:
    model = exact_gpt(configure(position=position))
    ids = texts(1, CONTEXT + 1)
    assert model.context == CONTEXT
    _, full = model(ids[:, :CONTEXT])
    _, state = model(ids[:, : CONTEXT - 2])
    model(ids[:, :2], state)
    too_much = [(ids, None), (ids[:, :3], state), (ids[:, :1], full)]
    for text, before in too_much:
        with pytest.raises(AssertionError, match="context"):
            model(text, before)


# --- positions -------------------------------------------------------------------------------


def test_sinusoids_are_those_of_the_paper() -> None:
    positions, width = 64, 16
    model = build(configure(position="sinusoidal", n_embd=width, n_head=2, context=positions))
    table = model.position.get_buffer("table")
    assert table.shape == (positions, width)
    for pos, i in product(range(positions), range(width // 2)):
        angle = pos / 10000 ** (2 * i / width)
        # an angle in float32 has a relative error of up to 2^-24
        expected = pytest.approx([math.sin(angle), math.cos(angle)], abs=positions * 2**-24)
        assert table[pos, 2 * i : 2 * i + 2].tolist() == expected


@pytest.mark.parametrize("qk_norm", GRID["qk_norm"])
def test_with_rope_a_score_depends_only_on_the_distance(qk_norm: bool) -> None:
    """In a text of one repeated character, queries and keys differ only by their positions."""
    model = exact_gpt(configure(position="rope", qk_norm=qk_norm, n_layer=1))
    assert isinstance(model, GPT)
    block = model.blocks[0]
    assert isinstance(block, Block)
    x, rotation = model.position(model.embed(torch.full((1, CONTEXT), 3)), 0)
    q, k, _ = block.attention.project(block.attention_norm(x), rotation)
    scores = q @ k.transpose(2, 3)  # (1, H, T, T)
    torch.testing.assert_close(scores[..., 1:, 1:], scores[..., :-1, :-1], rtol=0, atol=1e-10)
    by_distance = scores[0, :, -1].detach()  # (H, T)
    assert (by_distance.diff(dim=1).abs() > 1e-6).all()


# --- parameters ------------------------------------------------------------------------------


@every_config
def test_parameters_are_counted_once(config: GPTConfig) -> None:
    V, D, L, context = VOCAB, WIDTH, LAYERS, CONTEXT
    attention, biases = 3 * D * D + D * D, 3 * D + D
    if config.mlp == "swiglu":
        F = 8 * D // 3
        mlp, biases = 3 * F * D, biases + 2 * F + D
    else:
        F = 4 * D
        mlp, biases = 2 * F * D, biases + F + D
    norms = 2 * L + 1
    expected = (
        (1 if config.tie_weights else 2) * V * D
        + (context * D if config.position == "learned" else 0)
        + L * (attention + mlp + (biases if config.bias else 0))
        + norms * (2 * D if config.bias and config.norm == "layernorm" else D)
    )
    assert build(config).count_parameters() == expected


def test_the_small_network_of_nanogpt_has_the_number_of_parameters_it_reports() -> None:
    config = GPTConfig(
        n_layer=6,
        n_head=6,
        n_embd=384,
        context=256,
        position="learned",
        norm="layernorm",
        mlp="gelu",
        qk_norm=False,
        bias=False,
        tie_weights=True,
    )
    with torch.device("meta"):  # only counted, without memory
        count = build_model(config, 65, SEED).count_parameters()
    assert count - 256 * 384 == 10_646_784  # nanoGPT does not count the table of positions


@pytest.mark.parametrize(("width", "F"), [(12, 32), (16, 48), (128, 344), (384, 1024)])
def test_the_width_of_swiglu_is_8_thirds_d_in_steps_of_8(width: int, F: int) -> None:
    model = build(configure(mlp="swiglu", n_embd=width, n_head=2, n_layer=1))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["blocks.0.mlp.gate_up.weight"] == (2 * F, width)
    assert shapes["blocks.0.mlp.out.weight"] == (width, F)


@pytest.mark.parametrize(
    ("mlp", "first"), [("gelu", "mlp.up"), ("relu2", "mlp.up"), ("swiglu", "mlp.gate_up")]
)
def test_hidden_matrices_are_those_of_the_blocks(mlp: str, first: str) -> None:
    model = build(configure(mlp=mlp, position="learned", bias=True, tie_weights=True))
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert [names[parameter] for parameter in model.hidden_matrices()] == [
        f"blocks.{layer}.{matrix}.weight"
        for layer in range(LAYERS)
        for matrix in ("attention.qkv", "attention.out", first, "mlp.out")
    ]


@pytest.mark.parametrize("mlp", GRID["mlp"])
def test_matrices_start_normal_and_small_gains_at_one_and_biases_at_zero(mlp: str) -> None:
    config = configure(
        position="learned", norm="layernorm", mlp=mlp, bias=True, n_embd=48, n_layer=8, context=64
    )
    for name, parameter in build_model(config, 100, SEED).named_parameters():
        if parameter.ndim == 2:
            # 2L = 16 of them add to the residual stream
            std = 0.02 / 4 if name.endswith("out.weight") else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.06), name
            assert abs(parameter.mean().item()) < 0.1 * std, name
        else:
            assert (parameter == (0 if name.endswith("bias") else 1)).all(), name


@pytest.mark.parametrize("tied", GRID["tie_weights"])
def test_tied_weights_are_one_matrix(tied: bool) -> None:
    model = build(configure(tie_weights=tied))
    assert (model.head.weight is model.embed.weight) is tied


# --- dropout ---------------------------------------------------------------------------------


def dropping_at(name: str) -> GPT:
    """A model that drops everything at the modules of a name, and nothing elsewhere."""
    model = with_dropout(configure(position="learned", bias=True), "dropout", ALMOST_SURE)
    assert isinstance(model, GPT)
    for path, module in model.named_modules():
        if path == name or path.endswith("." + name):
            module.train()
    return model


def test_dropout_acts_on_the_sum_of_embedding_and_position() -> None:
    model = dropping_at("dropout")
    for block in model.blocks:
        block.eval()
    logits, _ = model(texts(2, 6))
    torch.testing.assert_close(logits, logits[:1, :1].expand_as(logits), rtol=0, atol=1e-10)


def test_dropout_acts_on_the_attention() -> None:
    ids = texts(1, 6)
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % VOCAB
    model = dropping_at("attention")
    assert torch.equal(model(ids)[0][:, 1:], model(changed)[0][:, 1:])


def test_dropout_acts_on_the_outputs_of_attention_and_mlp() -> None:
    ids, model = texts(2, 6), dropping_at("dropout")
    model.dropout.eval()
    embedded = model.embed(ids) + model.position.get_parameter("table")[:6]
    assert torch.equal(model(ids)[0], model.head(model.norm(embedded)))
