"""Every gradient of charlm.scratch against numeric slopes.

tests/models compares the models and their gradients with PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from charlm.scratch import Array, State
from charlm.scratch.functions import cross_entropy
from charlm.scratch.gpt import GPT
from charlm.scratch.gru import GRU
from charlm.scratch.lstm import LSTM
from charlm.scratch.mlp import MLP
from charlm.scratch.rnn import RNN
from charlm.scratch.trainer import Model

V, B, T = 7, 2, 6
RNG = np.random.default_rng(1)
IDS, TARGETS = RNG.integers(0, V, (2, B, T))
MLPS = {
    f"{units}-{'one_hot' if one_hot else 'embedding'}-{L}": MLP.random(
        RNG, V, N=3, D=4, F=5, L=L, units=units, one_hot=one_hot
    )
    for units in ("tanh", "sigmoid", "relu")
    for one_hot in (False, True)
    for L in (1, 2)
}
MODELS: dict[str, Model] = {
    **{f"mlp-{name}": model for name, model in MLPS.items()},
    **{
        f"{kind.__name__}-{L}": kind.random(RNG, V, D=5, L=L)
        for kind in (RNN, GRU, LSTM)
        for L in (1, 2)
    },
    "gpt": GPT.random(RNG, V, D=12, L=2, H=3, context=8),
}
for _model in MODELS.values():
    for _weight in _model.weights.values():
        _weight += RNG.normal(size=_weight.shape) / 4  # no bias is 0, no gain is 1


def first_state(name: str) -> State:
    """A state in the middle of a text."""
    if name.startswith("mlp"):
        return (RNG.integers(0, V, (B, 2)),)
    if name == "gpt":
        return ()
    model = MODELS[name]
    assert isinstance(model, RNN)
    return tuple(RNG.normal(size=(model.L, B, 5)) for _ in range(model.PARTS))


def assert_slopes(loss: Callable[[], float], array: Array, gradient: Array) -> None:
    """Central differences with Richardson's extrapolation, at up to 12 entries of an array."""

    def slope(index: tuple[int, ...], step: float) -> float:
        value = array[index]
        array[index] = value + step
        above = loss()
        array[index] = value - step
        below = loss()
        array[index] = value
        return (above - below) / (2 * step)

    assert gradient.shape == array.shape
    for flat in RNG.permutation(array.size)[:12]:
        index = tuple(int(i) for i in np.unravel_index(flat, array.shape))
        expected = (4 * slope(index, 5e-4) - slope(index, 1e-3)) / 3
        assert gradient[index] == pytest.approx(expected, rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_every_gradient_is_the_slope_of_the_loss(name: str) -> None:
    model, state = MODELS[name], first_state(name)

    def loss() -> float:
        return cross_entropy(model.forward(IDS, state)[0], TARGETS)[0]

    gradients = model.backward(cross_entropy(model.forward(IDS, state)[0], TARGETS)[1])
    assert gradients.keys() == model.weights.keys()
    for weight, gradient in gradients.items():
        assert_slopes(loss, model.weights[weight], gradient)
        assert gradient.any()
    if isinstance(model, RNN):
        d_state = model.d_state
        for part, gradient in zip(state, d_state, strict=True):
            assert_slopes(loss, part, gradient)


# --- states ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODELS if name != "gpt"])
def test_a_text_read_in_pieces_gives_the_logits_of_the_whole_text(name: str) -> None:
    model = MODELS[name]
    whole, after = model.forward(IDS)
    state, pieces = State(), list[npt.NDArray[np.float64]]()
    for t in range(T):
        logits, state = model.forward(IDS[:, t : t + 1], state)
        pieces.append(logits)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=0, atol=1e-12)
    for part, expected in zip(state, after, strict=True):
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-12)


def test_very_large_logits_do_not_overflow() -> None:
    logits = np.array([[[1000.0, 0.0], [-1000.0, 0.0]]])
    loss, d_logits = cross_entropy(logits, np.array([[1, 1]]))
    assert loss == 500
    np.testing.assert_array_equal(d_logits, [[[0.5, -0.5], [0, 0]]])
