"""What a trace tells, against the slow networks of reference.py, a text and a step at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm.insight.trace import trace, unit_kinds
from charlm.models import CharModel, Recurrent
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
def test_the_logits_and_the_state_are_the_models_own(kind: str) -> None:
    model, ids = network(kind).double().eval(), batch(3, 11)
    told, state = trace(model, ids)
    logits, own = model(ids)
    torch.testing.assert_close(told.logits, logits, rtol=0, atol=1e-12)
    if state is not None:
        torch.testing.assert_close(state, own, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_text_in_two_pieces_is_one(kind: str) -> None:
    model, ids = network(kind).double(), batch(2, 11)
    whole, _ = trace(model, ids)
    first, state = trace(model, ids[:, :4])
    second, _ = trace(model, ids[:, 4:], state)
    for name, units in (whole.units | whole.gates).items():
        pieces = [(piece.units | piece.gates)[name] for piece in (first, second)]
        torch.testing.assert_close(torch.cat(pieces, dim=2), units, rtol=0, atol=1e-13)


@pytest.mark.parametrize("input_", ["embedding", "one_hot"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_units_and_gates_are_those_of_a_loop_by_hand(kind: str, input_: str) -> None:
    model, ids = network(kind, input=input_).double(), batch(2, 9)
    told, _ = trace(model, ids)
    assert told.gates.keys() == GATES[kind].keys()
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for b, text in enumerate(ids.numpy()):
        for number, layer in enumerate(reference._read(kind, weights, text, None)):
            by_hand = [np.stack(part) for part in zip(*layer.states[1:], strict=True)]
            for name, values in zip(unit_kinds(model), by_hand, strict=True):
                np.testing.assert_allclose(told.units[name][number, b], values, atol=1e-12)
            for name, gate in GATES[kind].items():
                values = gate_by_hand(kind, layer, gate)
                np.testing.assert_allclose(told.gates[name][number, b], values, atol=1e-12)


def gate_by_hand(kind: str, layer: reference.Layer, gate: int) -> reference.Array:
    gates = reference._gru_gates if kind == "gru" else reference._lstm_gates
    return np.stack(
        [
            gates(layer.cell, x, state[0])[gate]
            for x, state in zip(layer.xs, layer.states[:-1], strict=True)
        ]
    )


@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal"])
@pytest.mark.parametrize("mlp", ["gelu", "relu2", "swiglu"])
def test_attention_is_the_softmax_of_queries_and_the_models_own_keys(
    position: str, mlp: str
) -> None:
    model, ids = network("gpt", position=position, mlp=mlp).double().eval(), batch(2, 7)
    told, _ = trace(model, ids, with_attention=True)
    logits, cache = model(ids)
    torch.testing.assert_close(told.logits, logits, rtol=0, atol=1e-12)
    assert told.attention is not None
    assert told.queries is not None
    assert told.keys is not None
    assert told.values is not None
    torch.testing.assert_close(told.keys, torch.stack(cache[::2]), rtol=0, atol=1e-12)
    torch.testing.assert_close(told.values, torch.stack(cache[1::2]), rtol=0, atol=1e-12)
    assert told.attention.shape == (2, 2, 2, 7, 7)
    for layer, b, h, t in np.ndindex(told.attention.shape[:4]):
        q, k = told.queries[layer, b, h, t].numpy(), told.keys[layer, b, h, : t + 1].numpy()
        row = told.attention[layer, b, h, t].numpy()
        np.testing.assert_allclose(row[: t + 1], reference.softmax(k @ q / 2), atol=1e-12)  # K = 4
        assert not row[t + 1 :].any()


# --- units held at zero: the same network without what reads them -------------------------------


def without(model: CharModel, kind: str, layer: int, unit: int) -> None:
    """Cut the connections out of a unit, in place."""
    with torch.no_grad():
        if isinstance(model, Recurrent):
            assert kind == "h"
            getattr(model.rnn, f"weight_hh_l{layer}")[:, unit] = 0
            above = layer + 1 < model.rnn.num_layers
            reads = getattr(model.rnn, f"weight_ih_l{layer + 1}") if above else model.head.weight
            reads[:, unit] = 0
        else:
            assert kind == "mlp"
            dict(model.named_parameters())[f"blocks.{layer}.mlp.out.weight"][:, unit] = 0


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("kind", "unit_kind"), [("rnn", "h"), ("lstm", "h"), ("gpt", "mlp")])
def test_a_unit_held_at_zero_is_one_that_nothing_reads(
    kind: str, unit_kind: str, layer: int
) -> None:
    model, ids = network(kind).double().eval(), batch(1, 9)
    size = unit_kinds(model)[unit_kind]
    kept = torch.ones(2, 1, size, dtype=torch.float64)
    kept[layer, 0, 3] = 0
    told, _ = trace(model, ids, kept={unit_kind: kept})
    without(model, unit_kind, layer, 3)
    torch.testing.assert_close(told.logits, model(ids)[0], rtol=0, atol=1e-12)


def test_a_cell_held_at_zero_lets_nothing_out() -> None:
    model, ids = network("lstm"), batch(1, 9)
    kept = torch.ones(2, 1, 6)
    kept[1, 0, 2] = 0
    told, _ = trace(model, ids, kept={"c": kept})
    whole, _ = trace(model, ids)
    for kind in ("h", "c"):
        assert not told.units[kind][1, :, :, 2].any()
        assert whole.units[kind][1, :, :, 2].all()
        torch.testing.assert_close(told.units[kind][0], whole.units[kind][0])
