"""The parts of a network against its parameters and inner values; the map of the embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from charlm.config.shapes import unit_sizes
from charlm.errors import BrokenModelError
from charlm.insight.network import embedding_map, parts_of
from charlm.insight.trace import trace
from tests.insight.helpers import RECURRENT, network

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *(
        (kind, settings)
        for kind in RECURRENT
        for settings in ({}, {"n_layer": 1, "dropout": 0.0}, {"n_layer": 4})
    ),
    ("lstm", {"input": "one_hot", "n_layer": 3}),
    ("gru", {"tie_weights": True}),
    ("mlp", {}),
    ("mlp", {"n_layer": 1, "input": "one_hot"}),
    ("gpt", {}),
    ("gpt", {"tie_weights": False, "position": "learned", "norm": "layernorm", "bias": True}),
    ("gpt", {"mlp": "swiglu", "position": "sinusoidal", "n_layer": 3}),
]


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_every_parameter_is_in_one_part(kind: str, settings: dict[str, Any]) -> None:
    model: Any = network(kind, **settings)
    counts = dict.fromkeys(("embedding", "layer", "hidden", "attention", "mlp", "norm", "head"), 0)
    for name, parameter in model.named_parameters():  # by its name; a shared one comes once
        places = {"rnn": "layer", "embed": "embedding", "layers": "hidden"}
        places["position"] = "embedding"
        first = name.split(".")[0]
        part = places.get(first, first)
        if part == "blocks":
            part = "attention" if "attention" in name else "mlp"
        counts[part] += parameter.numel()
    parts = parts_of(model)
    for part_kind, count in counts.items():
        assert sum(part.parameters for part in parts if part.kind == part_kind) == count
    assert parts[0].kind == "input"
    layers = sum(part.times for part in parts if part.kind in ("layer", "hidden", "mlp"))
    assert layers == model.config.n_layer


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_sizes_are_those_of_the_values_that_flow(kind: str, settings: dict[str, Any]) -> None:
    model: Any = network(kind, **settings)
    ids = torch.zeros(1, 3, dtype=torch.int64)
    traced, _ = trace(model, ids)
    sizes = {part.kind: part.size for part in parts_of(model)}
    values: dict[str, Any] = {
        "head": traced.logits,
        "layer": traced.units.get("h"),
        "mlp": traced.units.get("x"),
        "attention": traced.units.get("x"),
        "norm": traced.units.get("x"),
        "hidden": traced.units.get("h"),
    }
    if kind == "mlp":
        values["embedding"] = values["one-hot"] = torch.zeros(model.layers[0].in_features)
    else:
        values["embedding"] = model.embed(ids) if model.embed else None
        values["one-hot"] = None if model.embed else model.look_up(ids)
    for part_kind, expected in values.items():
        if part_kind in sizes:
            assert expected is not None
            assert sizes[part_kind] == expected.shape[-1]
    details = " ".join(part.detail for part in parts_of(model))
    if kind == "gpt":
        assert f"{unit_sizes(model.config)['mlp']} units" in details
        assert "2 heads of 4" in details
    elif kind == "mlp":
        assert f"{unit_sizes(model.config)['h']} units, tanh" in details
        assert f"{model.config.context} vectors of" in details
    else:
        assert f"{(traced.gates and len(traced.gates)) or 'no'} gates" in details


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_the_map_has_the_distances_along_the_main_directions(kind: str) -> None:
    model: Any = network(kind)
    found = embedding_map(model, "abcdeABC\n")
    rows = model.embed.weight.detach().double().numpy()
    centred = rows - rows.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    for axis in (0, 1):
        along = centred @ directions[:, -1 - axis]
        np.testing.assert_allclose(np.abs(found.xy[:, axis]), np.abs(along), atol=1e-9)
        assert abs(found.xy[:, axis] @ along) == pytest.approx(along @ along)  # one sign for all
        assert found.shares[axis] == pytest.approx(variances[-1 - axis] / variances.sum())
    assert found.classes == ("small letter",) * 5 + ("capital",) * 3 + ("line end",)


def test_two_groups_of_characters_are_apart_on_the_map() -> None:
    model: Any = network("lstm", input="one_hot")  # without an embedding
    with torch.no_grad():
        nn.init.normal_(model.rnn.weight_ih_l0, std=0.01)
        model.rnn.weight_ih_l0[:, 5:] += 1.0
    found = embedding_map(model, "abcde1234")
    first, second = found.xy[:5, 0], found.xy[5:, 0]
    assert max(first.min(), second.min()) > min(first.max(), second.max()) + 3
    assert found.shares[0] > 0.9


@pytest.mark.parametrize("size", [1, 2])
def test_a_vocabulary_of_one_or_two_characters_has_a_map(size: int) -> None:
    found = embedding_map(network("rnn", vocab_size=size), "ab"[:size])
    assert found.xy.shape == (size, 2)
    assert np.isfinite(found.xy).all()
    np.testing.assert_allclose(found.xy[:, 1], 0, atol=1e-12)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_embedding_that_is_not_finite_has_no_map(value: float) -> None:
    model: Any = network("lstm")
    with torch.no_grad():
        model.embed.weight[4, 2] = value
    with pytest.raises(BrokenModelError):
        embedding_map(model, "abcdeABC\n")
