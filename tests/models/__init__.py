"""Tests that every kind of model must pass, as a base class, and helpers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from charlm.config import ModelConfig, MuonConfig
from charlm.config.files import parse_config
from charlm.models import CharModel, State, build_model
from charlm.models.base import evaluating
from charlm.training.optim import Optimizers

VOCAB = 7  # different from every other size in the tests' models
SEED = 1
ALMOST_SURE = 1 - 1e-9  # a dropout probability that drops everything


def model_config(raw: dict[str, Any]) -> ModelConfig:
    """The settings of a network of any kind."""
    return parse_config({"name": "a", "data": {"path": "a"}, "model": raw}).model


def exact(model: CharModel) -> CharModel:
    """Put a model in float64 and evaluation mode, with random weights of ordinary size."""
    generator = torch.Generator().manual_seed(SEED)
    model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=generator)
    return model


def with_dropout(config: ModelConfig, setting: str, probability: float) -> CharModel:
    """A model with the weights of the exact model without dropout."""
    return exact(build_model(config.model_copy(update={setting: probability}), VOCAB, SEED))


def texts(count: int, length: int, seed: int = SEED) -> Tensor:
    """Random ids (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (count, length), generator=generator)


def weights_of(model: CharModel) -> dict[str, npt.NDArray[np.float64]]:
    """The weights by the names that charlm.scratch uses; a shared matrix appears twice."""
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def assert_near(actual: Tensor, expected: npt.NDArray[np.float64], tolerance: float) -> None:
    """Check that every number is within `tolerance` times the largest one."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=tolerance * scale)


def assert_gradients(model: CharModel, expected: dict[str, npt.NDArray[np.float64]]) -> None:
    """Check that autograd gave these gradients; a shared matrix gets the sum of both."""
    gradients = dict(expected)
    if "head.weight" not in dict(model.named_parameters()):
        gradients["embed.weight"] = gradients["embed.weight"] + gradients.pop("head.weight")
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_near(parameter.grad, gradients[name], 1e-10)


def same(a: tuple[Tensor, State], b: tuple[Tensor, State]) -> bool:
    """Whether two outputs of a model are equal bit for bit."""
    return torch.equal(a[0], b[0]) and all(map(torch.equal, a[1], b[1]))


def cuts(length: int) -> Iterator[list[int]]:
    """Every way to cut a text, as the lengths of the pieces."""
    yield [length]
    for first in range(1, length):
        for rest in cuts(length - first):
            yield [first, *rest]


class ModelContract:
    """Subclasses define a `config` fixture, and name the config's dropout settings."""

    dropouts: tuple[str, ...] = ("dropout",)

    @pytest.fixture
    def config(self) -> ModelConfig:
        raise NotImplementedError

    @pytest.fixture
    def model(self, config: ModelConfig) -> CharModel:
        return exact(build_model(config, VOCAB, SEED))

    def test_a_text_read_in_pieces_gives_the_logits_and_state_of_the_whole_text(
        self, model: CharModel
    ) -> None:
        ids = texts(2, 6)
        whole, after_whole = model(ids)
        for lengths in cuts(6):
            state: State | None = None
            pieces: list[Tensor] = []
            for piece in torch.split(ids, lengths, dim=1):
                logits, state = model(piece, state)
                pieces.append(logits)
            assert state is not None
            torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-10)
            torch.testing.assert_close(state, after_whole, rtol=0, atol=1e-10)

    def test_a_changed_character_changes_the_logits_from_its_position_on(
        self, model: CharModel
    ) -> None:
        ids = texts(1, 6)
        logits, _ = model(ids)
        for t in range(6):
            changed = ids.clone()
            changed[0, t] = (ids[0, t] + 1) % VOCAB
            difference = (model(changed)[0] - logits).abs().amax(dim=(0, 2))  # (T,)
            assert difference[:t].sum() < 1e-10
            assert difference[t:].min() > 1e-6

    def test_texts_of_a_batch_do_not_mix(self, model: CharModel) -> None:
        ids = texts(3, 6)
        together, _ = model(ids)
        alone = torch.cat([model(text[None])[0] for text in ids])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)

    def test_a_call_changes_neither_the_model_nor_the_state_passed_in(
        self, model: CharModel
    ) -> None:
        weights = weights_of(model)
        _, state = model(texts(2, 3, seed=2))
        given = tuple(part.clone() for part in state)
        first, first_after = model(texts(2, 3)), model(texts(2, 3), state)
        model(texts(1, 5, seed=3))
        model(texts(2, 2, seed=4), state)
        assert same(model(texts(2, 3)), first)
        assert same(model(texts(2, 3), state), first_after)
        assert all(map(torch.equal, state, given))
        for name, array in weights_of(model).items():
            np.testing.assert_array_equal(array, weights[name])

    def test_the_seed_decides_the_weights_and_the_global_generator_does_not_change(
        self, config: ModelConfig
    ) -> None:
        generator = torch.get_rng_state()
        first = build_model(config, VOCAB, seed=1).state_dict()
        assert torch.equal(torch.get_rng_state(), generator)
        torch.rand(3)  # the state of the global generator has no effect
        again = build_model(config, VOCAB, seed=1).state_dict()
        other = build_model(config, VOCAB, seed=2).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        matrices = [name for name, tensor in first.items() if tensor.ndim == 2]
        assert not any(torch.equal(first[name], other[name]) for name in matrices)

    def test_dropout_is_random_in_training_and_absent_in_evaluation(
        self, config: ModelConfig, model: CharModel
    ) -> None:
        ids = texts(8, 6)
        plain = model(ids)[0]
        assert torch.equal(model.train()(ids)[0], plain)  # no dropout, no randomness
        for setting in self.dropouts:
            dropping = with_dropout(config, setting, 0.5)
            assert torch.equal(dropping(ids)[0], plain)
            dropping.train()
            assert not torch.equal(dropping(ids)[0], dropping(ids)[0])

    @pytest.mark.parametrize("training", [True, False])
    def test_evaluating_switches_dropout_off_and_restores_the_mode(
        self, model: CharModel, training: bool
    ) -> None:
        model.train(training)
        with evaluating(model):
            assert not any(module.training for module in model.modules())
        assert all(module.training is training for module in model.modules())

        with pytest.raises(KeyError), evaluating(model):
            raise KeyError
        assert all(module.training is training for module in model.modules())

    def test_muon_trains_the_hidden_matrices_and_adamw_all_others(self, model: CharModel) -> None:
        muon, adamw = (
            [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for optimizer in Optimizers(model, MuonConfig()).each
        )
        assert len(muon) == len(model.hidden_matrices())
        assert set(muon) == set(model.hidden_matrices())
        assert len(muon) + len(adamw) == len(list(model.parameters()))
        assert {*muon, *adamw} == set(model.parameters())
        for parameter in model.parameters():
            if parameter.ndim < 2 or VOCAB in parameter.shape:
                assert parameter not in set(muon)
