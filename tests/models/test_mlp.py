"""The MLP against charlm.scratch, and the tests that every model must pass."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from charlm.config import MLPConfig
from charlm.models import MLP, build_model
from charlm.scratch import mlp
from charlm.scratch.functions import cross_entropy
from tests.models import (
    ALMOST_SURE,
    SEED,
    VOCAB,
    ModelContract,
    assert_gradients,
    assert_near,
    exact,
    texts,
    weights_of,
    with_dropout,
)

SIZES: dict[str, Any] = {"context": 6, "n_embd": 3, "hidden_size": 16}
CONFIGS = {
    f"{activation}-{n_layer}-{source}": MLPConfig.model_validate(
        SIZES | {"activation": activation, "n_layer": n_layer, "input": source}
    )
    for activation, n_layer, source in product(
        ("sigmoid", "tanh", "relu"), (1, 2), ("embedding", "one_hot")
    )
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def build(config: MLPConfig, vocab_size: int = VOCAB) -> MLP:
    model = build_model(config, vocab_size, SEED)
    assert isinstance(model, MLP)
    return model


@every_config
@pytest.mark.parametrize("length", [1, 4, 9])
@pytest.mark.parametrize("given", [False, True], ids=["fresh", "state"])
def test_logits_state_and_gradients_are_those_of_scratch(
    config: MLPConfig, length: int, given: bool
) -> None:
    model, ids, targets = exact(build(config)), texts(2, length), texts(2, length, seed=2)
    before = texts(2, config.context - 1, seed=3)
    scratch = mlp.MLP(weights_of(model), config.context, config.activation)
    logits, after = model(ids, (before[None],) if given else None)
    expected, expected_after = scratch.forward(ids.numpy(), (before.numpy(),) if given else ())
    assert_near(logits, expected, 1e-10)
    assert len(after) == 1
    np.testing.assert_array_equal(after[0][0].numpy(), expected_after[0])

    torch.autograd.backward(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))
    _, d_logits = cross_entropy(expected, targets.numpy())
    assert_gradients(model, scratch.backward(d_logits))


class TestMLP(ModelContract):
    @pytest.fixture(params=CONFIGS)
    def config(self, request: pytest.FixtureRequest) -> MLPConfig:
        return CONFIGS[request.param]


@every_config
def test_characters_before_the_context_have_no_effect(config: MLPConfig) -> None:
    model, ids = exact(build(config)), texts(1, 9)
    changed = ids.clone()
    changed[0, 0] = (ids[0, 0] + 1) % VOCAB
    difference = (model(changed)[0] - model(ids)[0]).abs().amax(dim=(0, 2))  # (T,)
    assert (difference > 1e-6).tolist() == [True] * config.context + [False] * 3


@every_config
def test_values_start_at_an_ordinary_size(config: MLPConfig) -> None:
    wide = config.model_copy(update={"hidden_size": 256, "n_embd": 32, "n_layer": 3})
    model = build(wide, 40)
    ids = torch.randint(40, (64, 20), generator=torch.Generator().manual_seed(SEED))
    x = model.first_layer(model.look_back(ids, None)[0][:, 6:])
    scale = math.sqrt(2) if config.activation == "relu" else 1.0
    assert x.std().item() == pytest.approx(scale, rel=0.1)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


@every_config
def test_dropout_drops_hidden_units_alone(config: MLPConfig) -> None:
    model = with_dropout(config, "dropout", ALMOST_SURE).train()
    assert torch.equal(model(texts(2, 6))[0], model.get_parameter("head.bias").expand(2, 6, -1))


@every_config
def test_hidden_matrices_are_those_of_all_layers(config: MLPConfig) -> None:
    model = build(config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    expected = [f"layers.{layer}.weight" for layer in range(config.n_layer)]
    assert [names[parameter] for parameter in model.hidden_matrices()] == expected
