"""The networks of charlm.models in plain NumPy, with every product and derivative written out.

The code reads one text at a time, so that each line looks like its equation. Weights have PyTorch's
names.

Shapes: T characters, V vocabulary, D width, L layers, G gates (1 for an RNN, 3 for a GRU, 4 for an
LSTM), N width of a recurrent layer's input (D, or V for one-hot), H heads, K = D / H.

    ids (T,)    logits (T, V)    recurrent state: (h,) or (h, c), each (L, D)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.config import GPTConfig

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Weights = Mapping[str, Array]
State = tuple[Array, ...]


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x); its derivative is s (1 - s)."""
    y: Array = 1 / (1 + np.exp(-x))
    return y


def softmax(x: Array) -> Array:
    """e^x_i / sum_j e^x_j over the last axis; subtracting the largest x does not change it."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    y: Array = e / e.sum(axis=-1, keepdims=True)
    return y


def summed_nll(logits: Array, targets: Ids) -> float:
    """-sum_t ln p_t(target_t), in nats."""
    return -sum(
        math.log(p[target]) for p, target in zip(softmax(logits), targets.tolist(), strict=True)
    )


# --- recurrent cells: one step forward -------------------------------------------------------
#
# gi = W_ih x + b_ih is the input's part of the gates, gh = W_hh h + b_hh the hidden state's part.
# h' and c' are the state after the step.


class Cell(NamedTuple):
    """The weights of a layer: W_ih (G*D, N), W_hh (G*D, D), b_ih and b_hh (G*D,)."""

    W_ih: Array
    W_hh: Array
    b_ih: Array
    b_hh: Array

    def gates(self, x: Array, h: Array) -> tuple[list[Array], list[Array]]:
        """gi and gh for x (N,) and h (D,), each split into G gates (D,)."""
        G = len(self.b_ih) // len(h)
        gi, gh = self.W_ih @ x + self.b_ih, self.W_hh @ h + self.b_hh
        return np.split(gi, G), np.split(gh, G)


def rnn_step(cell: Cell, x: Array, state: State) -> State:
    """h' = tanh(gi + gh)"""
    (h,) = state
    (gi,), (gh,) = cell.gates(x, h)
    return (np.tanh(gi + gh),)


def gru_step(cell: Cell, x: Array, state: State) -> State:
    """h' = (1 - z) n + z h"""
    (h,) = state
    _, z, n, _ = _gru_gates(cell, x, h)
    return ((1 - z) * n + z * h,)


def _gru_gates(cell: Cell, x: Array, h: Array) -> tuple[Array, Array, Array, Array]:
    """r = sigma(gi_r + gh_r), z = sigma(gi_z + gh_z), n = tanh(gi_n + r gh_n), and gh_n."""
    (gi_r, gi_z, gi_n), (gh_r, gh_z, gh_n) = cell.gates(x, h)
    r = sigmoid(gi_r + gh_r)
    return r, sigmoid(gi_z + gh_z), np.tanh(gi_n + r * gh_n), gh_n


def lstm_step(cell: Cell, x: Array, state: State) -> State:
    """c' = f c + i g;  h' = o tanh(c')"""
    h, c = state
    i, f, g, o = _lstm_gates(cell, x, h)
    c_new = f * c + i * g
    return o * np.tanh(c_new), c_new


def _lstm_gates(cell: Cell, x: Array, h: Array) -> tuple[Array, Array, Array, Array]:
    """i, f, o = sigma(gi + gh) each, and g = tanh(gi_g + gh_g)."""
    i, f, g, o = (gi + gh for gi, gh in zip(*cell.gates(x, h), strict=True))
    return sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)


# --- recurrent cells: one step back ----------------------------------------------------------
#
# d_y is the gradient of the loss with respect to y. From the gradient of the state after a step,
# each function returns d_gi, d_gh, and the part of the gradient of the state before that does not
# come through gh. _layer_back computes the rest, which is the same for all cells.

Back = tuple[Array, Array, State]


def rnn_back(cell: Cell, x: Array, state: State, d_state: State) -> Back:
    """tanh' = 1 - tanh^2"""
    (h,), (dh,) = rnn_step(cell, x, state), d_state
    d_gi = dh * (1 - h**2)
    return d_gi, d_gi, (np.zeros_like(dh),)


def gru_back(cell: Cell, x: Array, state: State, d_state: State) -> Back:
    """The reset gate r multiplies gh_n, so d_gh_n = r d_gi_n, and dr = d_gi_n gh_n."""
    (h,), (dh,) = state, d_state
    r, z, n, gh_n = _gru_gates(cell, x, h)
    d_n = dh * (1 - z) * (1 - n**2)
    d_z = dh * (h - n) * z * (1 - z)
    d_r = d_n * gh_n * r * (1 - r)
    return np.concatenate([d_r, d_z, d_n]), np.concatenate([d_r, d_z, d_n * r]), (dh * z,)


def lstm_back(cell: Cell, x: Array, state: State, d_state: State) -> Back:
    """c' goes into the next step and into h' = o tanh(c'); dc = f dc'."""
    (h, c), (dh, dc_new) = state, d_state
    i, f, g, o = _lstm_gates(cell, x, h)
    tanh_c = np.tanh(f * c + i * g)
    dc_new = dc_new + dh * o * (1 - tanh_c**2)
    d_gi = np.concatenate(
        [
            dc_new * g * i * (1 - i),
            dc_new * c * f * (1 - f),
            dc_new * i * (1 - g**2),
            dh * tanh_c * o * (1 - o),
        ]
    )
    return d_gi, d_gi, (np.zeros_like(dh), dc_new * f)


_STEP = {"rnn": rnn_step, "gru": gru_step, "lstm": lstm_step}
_BACK = {"rnn": rnn_back, "gru": gru_back, "lstm": lstm_back}


# --- the recurrent network -------------------------------------------------------------------


class Layer(NamedTuple):
    """The inputs of a layer (T, N), and its T + 1 states: before the text and after each step."""

    cell: Cell
    xs: Array
    states: list[State]


def recurrent(
    kind: str, weights: Weights, ids: Ids, state: State | None = None
) -> tuple[Array, State]:
    """Return the logits (T, V) and the state after the last character."""
    layers = _read(kind, weights, ids, state)
    logits = _outputs(layers[-1]) @ weights["head.weight"].T + weights["head.bias"]
    after = zip(*(layer.states[-1] for layer in layers), strict=True)
    return logits, tuple(np.stack(part) for part in after)


def recurrent_gradients(
    kind: str, weights: Weights, ids: Ids, targets: Ids, state: State | None = None
) -> tuple[dict[str, Array], State]:
    """Back-propagate `summed_nll` through time.

    Returns:
        The gradient with respect to every weight, by its name, and with respect to the state before
        the text. A matrix that is both embedding and head has two entries, to be added.
    """
    layers = _read(kind, weights, ids, state)
    ys = _outputs(layers[-1])
    # d(-ln softmax(z)_target)/dz = softmax(z) - one_hot(target)
    d_logits = softmax(ys @ weights["head.weight"].T + weights["head.bias"])
    d_logits[np.arange(len(targets)), targets] -= 1
    grads = {"head.weight": d_logits.T @ ys, "head.bias": d_logits.sum(axis=0)}

    d_ys: Array = d_logits @ weights["head.weight"]  # (T, D)
    d_state: list[State] = []
    for number, layer in reversed(list(enumerate(layers))):
        d_cell, d_ys, d_before = _layer_back(kind, layer, d_ys)
        d_state.insert(0, d_before)
        for name, gradient in zip(_names(number), d_cell, strict=True):
            grads[name] = gradient

    if "embed.weight" in weights:  # d_ys now belongs to the inputs of the first layer
        grads["embed.weight"] = np.zeros_like(weights["embed.weight"])
        np.add.at(grads["embed.weight"], ids, d_ys)
    return grads, tuple(np.stack(part) for part in zip(*d_state, strict=True))


def _names(layer: int) -> list[str]:
    return [f"rnn.{name}_l{layer}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


def _read(kind: str, weights: Weights, ids: Ids, state: State | None) -> list[Layer]:
    """Run the layers, the first one first, over the whole text."""
    one_hot = np.eye(len(weights["head.bias"]))
    xs = weights.get("embed.weight", one_hot)[ids]
    layers: list[Layer] = []
    while (names := _names(len(layers)))[0] in weights:
        cell = Cell(*(weights[name] for name in names))
        zeros = (np.zeros(cell.W_hh.shape[1]),) * (2 if kind == "lstm" else 1)
        states = [tuple(part[len(layers)] for part in state) if state else zeros]
        for x in xs:
            states.append(_STEP[kind](cell, x, states[-1]))
        layers.append(Layer(cell, xs, states))
        xs = _outputs(layers[-1])
    return layers


def _layer_back(kind: str, layer: Layer, d_ys: Array) -> tuple[Cell, Array, State]:
    """From d_ys (T, D): the gradients of the weights, of xs (T, N) and of the state before."""
    cell, grads = layer.cell, Cell(*(np.zeros_like(weight) for weight in layer.cell))
    d_xs = np.zeros_like(layer.xs)
    d_state: State = tuple(np.zeros_like(part) for part in layer.states[0])  # no loss after T
    for t in reversed(range(len(layer.xs))):
        x, before = layer.xs[t], layer.states[t]
        # h goes into the next step and into the layer above
        d_state = (d_state[0] + d_ys[t], *d_state[1:])
        d_gi, d_gh, d_direct = _BACK[kind](cell, x, before, d_state)
        for total, part in zip(
            grads, (np.outer(d_gi, x), np.outer(d_gh, before[0]), d_gi, d_gh), strict=True
        ):
            total += part
        d_xs[t] = cell.W_ih.T @ d_gi
        d_state = (d_direct[0] + cell.W_hh.T @ d_gh, *d_direct[1:])
    return grads, d_xs, d_state


def _outputs(layer: Layer) -> Array:
    return np.stack([state[0] for state in layer.states[1:]])  # (T, D)


# --- GPT -------------------------------------------------------------------------------------


def gpt(config: GPTConfig, weights: Weights, ids: Ids) -> Array:
    """The logits (T, V).

    x <- x + attention(norm(x));  x <- x + mlp(norm(x)) in every block; then head(norm(x)).
    """
    T = len(ids)
    x = weights["embed.weight"][ids]  # (T, D)
    if config.position == "learned":
        x = x + weights["position.table"][:T]
    elif config.position == "sinusoidal":
        x = x * math.sqrt(config.n_embd) + sinusoids(T, config.n_embd)
    for layer in range(config.n_layer):
        block = f"blocks.{layer}."
        x = x + _attention(
            config, weights, block, _norm(config, weights, block + "attention_norm", x)
        )
        x = x + _mlp(config, weights, block, _norm(config, weights, block + "mlp_norm", x))
    return _norm(config, weights, "norm", x) @ weights["head.weight"].T


def _attention(config: GPTConfig, weights: Weights, block: str, x: Array) -> Array:
    """Per head, position t gets the mean of v_1 .. v_t, weighted by softmax(q_t k_s / sqrt(K))."""
    T = len(x)
    future = np.triu(np.ones((T, T), dtype=bool), k=1)  # [t, s]: s > t
    heads = []
    qkv = np.split(_linear(weights, block + "attention.qkv", x), 3, axis=1)  # 3 times (T, D)
    for q, k, v in zip(*(np.split(m, config.n_head, axis=1) for m in qkv), strict=True):  # (T, K)
        if config.qk_norm:
            q, k = _rms_normalised(q), _rms_normalised(k)
        if config.position == "rope":
            q, k = rotated(q), rotated(k)
        scores = q @ k.T / math.sqrt(q.shape[1])  # (T, T)
        heads.append(softmax(np.where(future, -np.inf, scores)) @ v)
    return _linear(weights, block + "attention.out", np.concatenate(heads, axis=1))


def _mlp(config: GPTConfig, weights: Weights, block: str, x: Array) -> Array:
    """out(gelu(up x)), out(relu(up x)^2), or out(silu(gate x) * up x)."""
    if config.mlp == "swiglu":
        gate, up = np.split(_linear(weights, block + "mlp.gate_up", x), 2, axis=1)
        y = gate * sigmoid(gate) * up
    else:
        y = _linear(weights, block + "mlp.up", x)
        y = np.maximum(y, 0) ** 2 if config.mlp == "relu2" else y * _normal_cdf(y)
    return _linear(weights, block + "mlp.out", y)


def _linear(weights: Weights, name: str, x: Array) -> Array:
    y: Array = x @ weights[name + ".weight"].T
    return y + weights.get(name + ".bias", np.zeros(1))


def _norm(config: GPTConfig, weights: Weights, name: str, x: Array) -> Array:
    """LayerNorm: (x - mean) / sqrt(variance) * gain + bias. RMSNorm: x / sqrt(mean x^2) * gain."""
    if config.norm == "layernorm":
        x = _rms_normalised(x - x.mean(axis=1, keepdims=True), eps=1e-5)
    else:
        x = _rms_normalised(x)
    return x * weights[name + ".weight"] + weights.get(name + ".bias", np.zeros(1))


def _rms_normalised(x: Array, eps: float = np.finfo(np.float64).eps) -> Array:
    y: Array = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    return y


def _normal_cdf(x: Array) -> Array:
    """The probability that a standard normal variable is below x."""
    return np.array([[(1 + math.erf(value / math.sqrt(2))) / 2 for value in row] for row in x])


def angles(positions: int, width: int) -> Array:
    """[pos, i] = pos / 10000^(2i / width), (positions, width / 2)."""
    return np.array(
        [[pos / 10000 ** (2 * i / width) for i in range(width // 2)] for pos in range(positions)]
    )


def sinusoids(positions: int, width: int) -> Array:
    """[pos, 2i] = sin(angle[pos, i]), [pos, 2i + 1] = cos(angle[pos, i]), (positions, width)."""
    table = np.empty((positions, width))
    table[:, 0::2] = np.sin(angles(positions, width))
    table[:, 1::2] = np.cos(angles(positions, width))
    return table


def rotated(x: Array) -> Array:
    """x (T, K) as K/2 complex numbers x_i + x_{i + K/2} j, rotated by angle[t, i] at position t."""
    real, imaginary = np.split(x, 2, axis=1)
    z = (real + 1j * imaginary) * np.exp(1j * angles(*x.shape))
    return np.concatenate([z.real, z.imag], axis=1)
