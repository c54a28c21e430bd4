"""The shapes that a config needs are those that its model has."""

from __future__ import annotations

import itertools
from itertools import islice
from typing import Any, get_args

import pytest

from charlm.config import GPTConfig, MLPConfig, RecurrentConfig
from charlm.config.shapes import count_weights, state_shapes, weight_shapes
from charlm.models import build_model

V, B = 11, 3
SIZES: dict[type, dict[str, Any]] = {
    RecurrentConfig: {"hidden_size": 6},
    GPTConfig: {"n_head": 2, "n_embd": 12, "context": 5},
    MLPConfig: {"hidden_size": 6, "n_embd": 2, "context": 4},
}


def every_config(group: Any) -> list[Any]:
    """Configs with every combination of the options that have names or are true or false."""
    options = {
        name: [False, True] if field.annotation is bool else get_args(field.annotation)
        for name, field in group.model_fields.items()
        if field.annotation is bool or get_args(field.annotation)
    }
    assert len(options) >= 2
    found = []
    for layers, *values in itertools.product((1, 3), *options.values()):
        raw = SIZES[group] | {"n_layer": layers} | dict(zip(options, values, strict=True))
        if not (raw.get("input") == "one_hot" and raw.get("tie_weights")):
            found.append(group.model_validate(raw))
    return found


@pytest.mark.parametrize("group", SIZES)
def test_weights_have_the_names_and_shapes_of_the_models_parameters(group: Any) -> None:
    for config in every_config(group):
        model = build_model(config, V, seed=1)
        named = list(weight_shapes(config, V))
        assert len(named) == len(dict(named))
        assert dict(named) == {name: tuple(p.shape) for name, p in model.named_parameters()}
        assert count_weights(config, V) == model.count_parameters()


def test_states_have_the_names_and_shapes_of_the_models_states() -> None:
    import torch

    for config in (*every_config(RecurrentConfig), *every_config(MLPConfig)):
        _, state = build_model(config, V, seed=1)(torch.zeros(B, 2, dtype=torch.long))
        expected = {str(i): tuple(tensor.shape) for i, tensor in enumerate(state)}
        assert dict(state_shapes(config, B)) == expected


@pytest.mark.parametrize("group", SIZES)
def test_a_billion_layers_are_not_listed(group: Any) -> None:
    config = group().model_copy(update={"n_layer": 10**9})
    assert len(list(islice(weight_shapes(config, V), 1000))) == 1000
