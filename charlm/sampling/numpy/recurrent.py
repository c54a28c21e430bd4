"""The forward step of a vanilla RNN, a GRU and an LSTM.

Shapes: B texts, V vocabulary, D hidden_size, L n_layer, G gates (1 in the RNN, 3 in the GRU, 4 in
the LSTM). Each text is a row, and the gates of a layer stand side by side in a row of G * D.

    a = W x + b     what the gates get from below, the character or the layer underneath
    p = U h + c     what they get from the past; where the two are only added up, c is in b

For the first layer, a depends on the character alone, so it is a table by character (V, G * D).
Then a step reads each matrix once, and no more is to be done than that takes.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

import numpy as np

from charlm.config import RecurrentConfig
from charlm.sampling.numpy.arrays import Array, Arrays, Shapes, Weights

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
SMALL_TABLE = 1_000_000  # numbers; a larger one is made only if below a quarter of the weights

State = tuple[Array, ...]  # (h,), of an LSTM (h, c), each (B, D)


def shapes(config: RecurrentConfig, vocab_size: int) -> Shapes:
    """What the weights are called, and their shapes."""
    V, D, G = vocab_size, config.hidden_size, GATES[config.kind]
    found: Shapes = {"embed.weight": (V, D)} if config.input == "embedding" else {}
    for layer in range(config.n_layer):
        width = V if layer == 0 and config.input == "one_hot" else D
        found |= {f"rnn.weight_ih_l{layer}": (G * D, width), f"rnn.weight_hh_l{layer}": (G * D, D)}
        found |= {f"rnn.bias_{of}_l{layer}": (G * D,) for of in ("ih", "hh")}
    return found | ({} if config.tie_weights else {"head.weight": (V, D)}) | {"head.bias": (V,)}


class Recurrent:
    """A recurrent network and what it remembers of B texts."""

    context: int | None = None

    def __init__(
        self, config: RecurrentConfig, vocab_size: int, weights: Weights, arrays: Arrays
    ) -> None:
        self.vocab_size = vocab_size
        self.config, self._arrays = config, arrays
        self.embed = weights.get("embed.weight")  # none where the input is one-hot
        self.head = weights.get("head.weight", self.embed).T, weights["head.bias"][None]
        self.below, self.past = [], []  # of each layer W^T and b, U^T and c
        for layer in range(config.n_layer):
            W, U, b, c = (
                weights[f"rnn.{what}_l{layer}"]
                for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            apart = config.kind == "gru"
            self.below.append((W.T, (b if apart else b + c)[None]))
            self.past.append((U.T, c[None] if apart else None))
        self.table = self._make_table(sum(int(np.prod(w.shape)) for w in weights.values()))
        self._cell = _cell(config.kind, config.hidden_size, arrays)
        self._states: list[State] = []  # a layer each, once something is read

    def fresh(self) -> Recurrent:
        """Another of the same weights, at the beginning of a text."""
        other = copy(self)
        other.restart()
        return other

    def restart(self) -> None:
        """Forget what was read."""
        self._states = []

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts read so far, some perhaps many times."""
        self._states = [tuple(part[texts] for part in state) for state in self._states]

    def read(self, ids: Array) -> Array:
        """Read T characters of each text, ids (B, T); the logits (B, V) of the next."""
        if not self._states:
            zero = self._arrays.zeros(len(ids), self.config.hidden_size)
            state = (zero, zero) if self.config.kind == "lstm" else (zero,)
            self._states = [state] * self.config.n_layer
        for t in range(ids.shape[1]):
            self._step(ids[:, t])
        return _affine(self._states[-1][0], *self.head)

    def _step(self, ids: Array) -> None:
        a = self._first(ids)  # (B, G * D)
        for layer, state in enumerate(self._states):
            if layer:
                a = _affine(self._states[layer - 1][0], *self.below[layer])
            U, c = self.past[layer]
            p = state[0] @ U if c is None else state[0] @ U + c
            self._states[layer] = self._cell(a, p, state)

    def _first(self, ids: Array) -> Array:
        """What the first layer's gates get from characters ids (B,): (B, G * D)."""
        if self.table is not None:
            return self.table[ids]
        if self.embed is not None:
            return _affine(self.embed[ids], *self.below[0])
        W, b = self.below[0]  # W is (V, G * D)
        return W[ids] + b

    def _make_table(self, n_weights: int) -> Array | None:
        W, b = self.below[0]
        if self.vocab_size * b.shape[1] > max(SMALL_TABLE, n_weights // 4):
            return None
        if self.embed is not None:
            return _affine(self.embed, W, b)
        return self._arrays.xp.stack(list(W + b))  # row by row, so that each lies in one piece


def _affine(x: Array, W: Array, b: Array) -> Array:
    """x (B, I), W (I, O), b (1, O) -> (B, O)."""
    return x @ W + b


Cell = Callable[[Array, Array, State], State]


def _cell(kind: str, D: int, arrays: Arrays) -> Cell:
    """The equations: a and p (B, G * D) and the state before, to the state after."""
    tanh = arrays.xp.tanh

    def rnn(a: Array, p: Array, state: State) -> State:  # noqa: ARG001
        return (tanh(a + p),)

    def gru(a: Array, p: Array, state: State) -> State:
        (h,) = state
        rz = tanh((a[:, : 2 * D] + p[:, : 2 * D]) * 0.5) * 0.5 + 0.5  # sigma, as below
        r, z = rz[:, :D], rz[:, D:]
        n = tanh(a[:, 2 * D :] + r * p[:, 2 * D :])
        return (n + z * (h - n),)

    # sigma(x) = tanh(x / 2) / 2 + 1/2, so one tanh serves all four gates i, f, g, o of the LSTM
    scale = np.full((1, 4 * D), 0.5, np.float32)
    scale[:, 2 * D : 3 * D] = 1.0  # g is a tanh itself
    half, rest = arrays.make(scale), arrays.make(1 - scale)

    def lstm(a: Array, p: Array, state: State) -> State:
        _, c = state
        gates = tanh((a + p) * half) * half + rest
        i, f, g, o = gates[:, :D], gates[:, D : 2 * D], gates[:, 2 * D : 3 * D], gates[:, 3 * D :]
        c = f * c + i * g
        return o * tanh(c), c

    return {"rnn": rnn, "gru": gru, "lstm": lstm}[kind]
