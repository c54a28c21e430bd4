"""A trace against the networks of charlm.scratch, one step at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm.config.shapes import unit_sizes
from charlm.insight.trace import trace
from charlm.models import MLP, CharModel, Recurrent
from tests.insight.helpers import KINDS, RECURRENT, network, random_ids
from tests.models import reference

GATES = {
    "rnn": {},
    "gru": {"reset": 0, "update": 1},
    "lstm": {"input": 0, "forget": 1, "output": 3},
}


def batch(rows: int, length: int) -> Tensor:
    return torch.from_numpy(random_ids(rows * length).reshape(rows, length).astype(np.int64))


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_and_the_state_equal_those_of_the_model(kind: str) -> None:
    model, ids = network(kind).double().eval(), batch(3, 11)
    traced, state = trace(model, ids)
    logits, expected = model(ids)
    torch.testing.assert_close(traced.logits, logits, rtol=0, atol=1e-12)
    if state is not None:
        torch.testing.assert_close(state, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [*RECURRENT, "mlp"])
def test_a_text_in_two_pieces_gives_the_same_units(kind: str) -> None:
    model, ids = network(kind).double(), batch(2, 11)
    whole, _ = trace(model, ids)
    first, state = trace(model, ids[:, :4])
    second, _ = trace(model, ids[:, 4:], state)
    for name, units in (whole.units | whole.gates).items():
        pieces = [(piece.units | piece.gates)[name] for piece in (first, second)]
        torch.testing.assert_close(torch.cat(pieces, dim=2), units, rtol=0, atol=1e-13)


@pytest.mark.parametrize("input_", ["embedding", "one_hot"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_units_and_gates_equal_those_of_charlm_scratch(kind: str, input_: str) -> None:
    model, ids = network(kind, input=input_).double(), batch(2, 9)
    traced, _ = trace(model, ids)
    assert traced.gates.keys() == GATES[kind].keys()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    scratch = reference.RECURRENT[kind](weights)
    states = [scratch.forward(ids.numpy()[:, : t + 1])[1] for t in range(9)]
    for name, expected in zip(unit_sizes(model.config), zip(*states, strict=True), strict=True):
        units = np.stack(expected, axis=2)  # T times (L, B, D)
        np.testing.assert_allclose(traced.units[name], units, atol=1e-12)
    for name, gate in GATES[kind].items():
        gates = [[gates[gate] for _, gates in steps] for steps in scratch.steps]  # L, T, (B, D)
        np.testing.assert_allclose(
            traced.gates[name], np.array(gates).transpose(0, 2, 1, 3), atol=1e-12
        )


@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal"])
@pytest.mark.parametrize("mlp", ["gelu", "relu2", "swiglu"])
def test_attention_is_the_softmax_of_queries_and_keys_of_the_model(position: str, mlp: str) -> None:
    model, ids = network("gpt", position=position, mlp=mlp).double().eval(), batch(2, 7)
    traced, _ = trace(model, ids, with_attention=True)
    logits, cache = model(ids)
    torch.testing.assert_close(traced.logits, logits, rtol=0, atol=1e-12)
    assert traced.attention is not None
    assert traced.queries is not None
    assert traced.keys is not None
    assert traced.values is not None
    torch.testing.assert_close(traced.keys, torch.stack(cache[::2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(traced.values, torch.stack(cache[1::2]), rtol=0, atol=1e-12)
    assert traced.attention.shape == (2, 2, 2, 7, 7)
    for layer, b, h, t in np.ndindex(traced.attention.shape[:4]):
        q, k = traced.queries[layer, b, h, t].numpy(), traced.keys[layer, b, h, : t + 1].numpy()
        row = traced.attention[layer, b, h, t].numpy()
        np.testing.assert_allclose(row[: t + 1], reference.softmax(k @ q / 2), atol=1e-12)  # K = 4
        assert not row[t + 1 :].any()


# --- units held at zero: the same as a network without their connections ---------------------


def without(model: CharModel, kind: str, layer: int, unit: int) -> None:
    """Set the outgoing weights of a unit to zero, in place."""
    with torch.no_grad():
        if isinstance(model, Recurrent):
            assert kind == "h"
            getattr(model.rnn, f"weight_hh_l{layer}")[:, unit] = 0
            above = layer + 1 < model.rnn.num_layers
            reads = getattr(model.rnn, f"weight_ih_l{layer + 1}") if above else model.head.weight
            reads[:, unit] = 0
        elif isinstance(model, MLP):
            assert kind == "h"
            above = layer + 1 < len(model.layers)
            (model.layers[layer + 1] if above else model.head).weight[:, unit] = 0
        else:
            assert kind == "mlp"
            dict(model.named_parameters())[f"blocks.{layer}.mlp.out.weight"][:, unit] = 0


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(
    ("kind", "unit_kind"), [("rnn", "h"), ("lstm", "h"), ("mlp", "h"), ("gpt", "mlp")]
)
def test_a_unit_held_at_zero_equals_a_unit_that_nothing_reads(
    kind: str, unit_kind: str, layer: int
) -> None:
    model, ids = network(kind).double().eval(), batch(1, 9)
    size = unit_sizes(model.config)[unit_kind]
    mask = torch.ones(2, 1, size, dtype=torch.float64)
    mask[layer, 0, 3] = 0
    traced, _ = trace(model, ids, masks={unit_kind: mask})
    without(model, unit_kind, layer, 3)
    torch.testing.assert_close(traced.logits, model(ids)[0], rtol=0, atol=1e-12)


def test_a_cell_held_at_zero_has_no_output() -> None:
    model, ids = network("lstm"), batch(1, 9)
    mask = torch.ones(2, 1, 6)
    mask[1, 0, 2] = 0
    traced, _ = trace(model, ids, masks={"c": mask})
    whole, _ = trace(model, ids)
    for kind in ("h", "c"):
        assert not traced.units[kind][1, :, :, 2].any()
        assert whole.units[kind][1, :, :, 2].all()
        torch.testing.assert_close(traced.units[kind][0], whole.units[kind][0])
