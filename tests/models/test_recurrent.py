"""RNN, GRU and LSTM against their equations and their gradients derived by hand, and the tests that
every model must pass."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from charlm.config import RecurrentConfig
from charlm.models import CharModel, Recurrent, State, build_model
from charlm.scratch.functions import cross_entropy
from charlm.scratch.rnn import RNN
from tests.models import (
    ALMOST_SURE,
    SEED,
    VOCAB,
    ModelContract,
    assert_gradients,
    assert_near,
    exact,
    reference,
    same,
    texts,
    weights_of,
    with_dropout,
)

WIDTH = 5
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
INPUTS: dict[str, dict[str, Any]] = {
    "embedding": {},
    "one_hot": {"input": "one_hot"},
    "tied": {"tie_weights": True},
}
CONFIGS = {
    f"{kind}-{n_layer}-{name}": RecurrentConfig.model_validate(
        {"kind": kind, "n_layer": n_layer, "hidden_size": WIDTH, **settings}
    )
    for kind, n_layer, (name, settings) in product(GATES, (1, 2), INPUTS.items())
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
with_and_without_state = pytest.mark.parametrize("given", [False, True], ids=["fresh", "state"])


def build(config: RecurrentConfig) -> Recurrent:
    model = build_model(config, VOCAB, SEED)
    assert isinstance(model, Recurrent)
    return model


def random_state(config: RecurrentConfig, batch: int) -> State:
    """(h,) or (h, c), each (L, B, D)."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (config.n_layer, batch, WIDTH)
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for _ in range(2 if config.kind == "lstm" else 1)
    )


def by_hand(config: RecurrentConfig, model: CharModel) -> RNN:
    """The same network of charlm.scratch, with the same weights."""
    return reference.RECURRENT[config.kind](weights_of(model))


def numpy_of(state: State | None) -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(part.detach().numpy() for part in state or ())


# --- equations and gradients -----------------------------------------------------------------


@every_config
@with_and_without_state
def test_logits_and_state_follow_the_equations(config: RecurrentConfig, given: bool) -> None:
    model, ids = exact(build(config)), texts(2, 6)
    state = random_state(config, 2) if given else None
    logits, after = model(ids, state)
    expected, expected_after = by_hand(config, model).forward(ids.numpy(), numpy_of(state))
    assert_near(logits, expected, 1e-10)
    for part, expected_part in zip(after, expected_after, strict=True):
        assert_near(part, expected_part, 1e-10)


@every_config
@with_and_without_state
def test_autograd_gives_the_hand_derived_gradients(config: RecurrentConfig, given: bool) -> None:
    model, ids, targets = exact(build(config)), texts(2, 6), texts(2, 6, seed=2)
    state = random_state(config, 2) if given else None
    for part in state or ():
        part.requires_grad_()
    logits, _ = model(ids, state)
    torch.autograd.backward(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))

    scratch = by_hand(config, model)
    expected_logits, _ = scratch.forward(ids.numpy(), numpy_of(state))
    _, d_logits = cross_entropy(expected_logits, targets.numpy())
    assert_gradients(model, scratch.backward(d_logits))
    for part, expected in zip(state or (), scratch.d_state if given else (), strict=True):
        assert part.grad is not None
        assert_near(part.grad, expected, 1e-10)


# --- what every model must do ----------------------------------------------------------------


class TestRecurrent(ModelContract):
    dropouts = ("dropout", "input_dropout", "output_dropout", "weight_dropout")

    @pytest.fixture(params=[name for name in CONFIGS if "-2-" in name])
    def config(self, request: pytest.FixtureRequest) -> RecurrentConfig:
        return CONFIGS[request.param]


@every_config
def test_parameters_are_counted_once(config: RecurrentConfig) -> None:
    V, D, L, G = VOCAB, WIDTH, config.n_layer, GATES[config.kind]
    first = V if config.input == "one_hot" else D
    layers = G * D * (first + D + 2) + (L - 1) * G * D * (D + D + 2)
    embedding = 0 if config.input == "one_hot" or config.tie_weights else V * D
    assert build(config).count_parameters() == embedding + layers + V * D + V


def test_the_network_of_char_rnn_has_the_number_of_parameters_it_reports() -> None:
    config = RecurrentConfig(kind="lstm", n_layer=2, hidden_size=128, input="one_hot")
    assert build_model(config, 65, SEED).count_parameters() == 240_321


@every_config
def test_hidden_matrices_are_those_of_the_layers_but_not_the_one_hot_inputs(
    config: RecurrentConfig,
) -> None:
    model = build(config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    expected = [
        f"rnn.weight_{which}_l{layer}" for layer in range(config.n_layer) for which in ("ih", "hh")
    ]
    if config.input == "one_hot":
        expected.remove("rnn.weight_ih_l0")
    assert [names[parameter] for parameter in model.hidden_matrices()] == expected


@every_config
def test_recurrent_matrices_start_orthogonal_and_differ_between_gates(
    config: RecurrentConfig,
) -> None:
    for layer in range(config.n_layer):
        gates = build(config).rnn.get_parameter(f"weight_hh_l{layer}").split(WIDTH)
        assert len(gates) == GATES[config.kind]
        for W in gates:
            torch.testing.assert_close(W @ W.T, torch.eye(WIDTH), rtol=0, atol=1e-5)
        assert len({W.sum().item() for W in gates}) == len(gates)


@every_config
def test_biases_start_at_zero_but_those_of_forget_gates_at_one(config: RecurrentConfig) -> None:
    model = build(config)
    expected = torch.zeros(GATES[config.kind], WIDTH)
    if config.kind == "lstm":
        expected[1] = 1  # i, f, g, o
    for layer in range(config.n_layer):
        b_ih, b_hh = (model.rnn.get_parameter(f"bias_{which}_l{layer}") for which in ("ih", "hh"))
        assert torch.equal(b_ih + b_hh, expected.flatten())
    assert not model.head.bias.any()


@pytest.mark.parametrize("tied", [False, True])
def test_embedding_and_head_start_at_their_documented_scale(tied: bool) -> None:
    V, D = 200, 64
    config = RecurrentConfig(hidden_size=D, tie_weights=tied)
    model = build_model(config, V, SEED)
    assert isinstance(model, Recurrent)
    assert model.embed is not None
    assert (model.head.weight is model.embed.weight) is tied
    # PyTorch: embedding normal 1, linear uniform within 1 / sqrt(D); tied: normal 1 / sqrt(D)
    embedding, head = (1 / math.sqrt(D),) * 2 if tied else (1, 1 / math.sqrt(3 * D))
    assert model.embed.weight.std().item() == pytest.approx(embedding, rel=0.05)
    assert model.head.weight.std().item() == pytest.approx(head, rel=0.05)


# --- dropout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CONFIGS if "-2-" in name])
def test_dropout_acts_where_its_description_says(name: str) -> None:
    config, one, other = CONFIGS[name], texts(2, 6), texts(2, 6, seed=2)

    on_output = with_dropout(config, "output_dropout", ALMOST_SURE).train()
    assert torch.equal(on_output(one)[0], on_output.get_parameter("head.bias").expand(2, 6, -1))

    on_input = with_dropout(config, "input_dropout", ALMOST_SURE).train()
    (logits, state), (logits_of_other, state_of_other) = on_input(one), on_input(other)
    assert torch.equal(logits, logits_of_other)
    assert torch.equal(state[0], state_of_other[0])

    between = with_dropout(config, "dropout", ALMOST_SURE).train()
    (logits, state), (logits_of_other, state_of_other) = between(one), between(other)
    assert torch.equal(logits, logits_of_other)
    assert torch.equal(state[0][1], state_of_other[0][1])
    assert not torch.equal(state[0][0], state_of_other[0][0])  # below the dropout


@pytest.mark.parametrize("setting", ["input_dropout", "output_dropout"])
def test_dropout_drops_the_same_units_at_every_position_of_a_sequence(setting: str) -> None:
    model = with_dropout(RecurrentConfig(hidden_size=400), setting, 0.25).train()
    assert isinstance(model, Recurrent)
    layer = model.get_submodule(setting)
    out = layer(torch.ones(6, 3, 400))  # (T, B, D)
    assert torch.equal(out, out[:1].expand_as(out))
    assert sorted(out.unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert (out == 0).double().mean().item() == pytest.approx(0.25, abs=0.06)
    assert not torch.equal(out[0, 0], out[0, 1])  # sequences of a batch differ
    assert not torch.equal(out, layer(torch.ones(6, 3, 400)))


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_weight_dropout_equals_a_model_whose_recurrent_weights_are_dropped(kind: Any) -> None:
    config = RecurrentConfig(kind=kind, n_layer=2, hidden_size=12)
    model = with_dropout(config, "weight_dropout", 0.5).train()
    assert isinstance(model, Recurrent)
    plain = exact(build_model(config, VOCAB, SEED))
    ids = texts(2, 6)
    torch.manual_seed(7)
    logits, state = model(ids)
    torch.autograd.backward(logits.sum())
    torch.manual_seed(7)
    with torch.no_grad():
        for layer in range(2):
            name = f"rnn.weight_hh_l{layer}"
            W_hh = plain.get_parameter(name)
            dropped = torch.nn.functional.dropout(W_hh, 0.5)
            assert 0.3 < (dropped == 0).double().mean().item() < 0.7
            W_hh.copy_(dropped)
    expected, expected_state = plain(ids)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(state, expected_state)
    torch.autograd.backward(expected.sum())
    for name, parameter in model.named_parameters():
        other, ours = plain.get_parameter(name), parameter.grad
        assert ours is not None
        assert other.grad is not None
        kept = 2 * (other != 0) if "weight_hh" in name else 1
        torch.testing.assert_close(ours, other.grad * kept)
    model.eval()
    assert same(model(ids), exact(build_model(config, VOCAB, SEED))(ids))
