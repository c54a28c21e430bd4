"""The forward pass of a vanilla RNN, a GRU and an LSTM, one character at a time.

Shapes: B texts, V vocabulary, D hidden_size, L n_layer, G gates (1 in the RNN, 3 in the GRU, 4 in
the LSTM). Each text is a row, and the gates of a layer are next to each other in a row of G*D.

The equations and the names are those of charlm.models.recurrent, with texts as rows:

    gi = x W_ih^T + b_ih      (B, G*D); x is the input of the layer: the character, or the h of
    gh = h W_hh^T + b_hh      the layer below

The RNN and the LSTM use only the sum gi + gh. For them, b_hh is added to b_ih in advance.

The gi of the first layer depends on the character only, so it is read from a table (V, G*D).
With this table, the first layer needs no product with W_ih.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from charlm.config import RecurrentConfig
from charlm.sampling.engine import Engine
from charlm.sampling.numpy.arrays import Array, Arrays, Weights, is_small_table

State = tuple[Array, ...]  # (h,), or (h, c) of an LSTM, each (B, D)


class Recurrent(Engine):
    """A recurrent network and its state after reading B texts. An Engine, with numpy.

    Attributes:
        embed: (V, D), or None if the input is one-hot.
        ih: for each layer W_ih^T, (D, G*D), and b_ih, (1, G*D). In the RNN and the LSTM the bias
            is b_ih + b_hh. With one-hot input, W_ih^T of the first layer is (V, G*D).
        hh: for each layer W_hh^T, (D, G*D), and b_hh, (1, G*D), or None where it is in `ih`.
        head: W^T, (D, V), and b, (1, V).
        table: the gi of the first layer by character, (V, G*D), or None.
    """

    context: int | None = None

    def __init__(
        self, config: RecurrentConfig, vocab_size: int, weights: Weights, arrays: Arrays
    ) -> None:
        self.vocab_size = vocab_size
        self.config, self._arrays = config, arrays
        self.embed = weights.get("embed.weight")
        self.head = weights.get("head.weight", self.embed).T, weights["head.bias"][None]
        self.ih, self.hh = [], []
        for layer in range(config.n_layer):
            W_ih, W_hh, b_ih, b_hh = (
                weights[f"rnn.{name}_l{layer}"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            separate = config.kind == "gru"
            self.ih.append((W_ih.T, (b_ih if separate else b_ih + b_hh)[None]))
            self.hh.append((W_hh.T, b_hh[None] if separate else None))
        self.table = self._make_table(sum(int(np.prod(w.shape)) for w in weights.values()))
        self._cell = _cell(config.kind, config.hidden_size, arrays)
        self._states: list[State] = []  # one for each layer; empty before the first read

    def restart(self) -> None:
        self._states = []

    def select(self, texts: list[int]) -> None:
        self._states = [tuple(part[texts] for part in state) for state in self._states]

    def read(self, ids: Array) -> Array:
        if not self._states:
            zero = self._arrays.zeros(len(ids), self.config.hidden_size)
            state = (zero, zero) if self.config.kind == "lstm" else (zero,)
            self._states = [state] * self.config.n_layer
        for t in range(ids.shape[1]):
            self._step(ids[:, t])
        return _affine(self._states[-1][0], *self.head)

    def _step(self, ids: Array) -> None:
        """Read one character of each text, ids (B,)."""
        gi = self._first_gi(ids)  # (B, G*D)
        for layer, state in enumerate(self._states):
            if layer:
                gi = _affine(self._states[layer - 1][0], *self.ih[layer])
            W, b = self.hh[layer]
            gh = state[0] @ W if b is None else state[0] @ W + b
            self._states[layer] = self._cell(gi, gh, state)

    def _first_gi(self, ids: Array) -> Array:
        """The gi of the first layer for ids (B,): (B, G*D)."""
        if self.table is not None:
            return self.table[ids]
        if self.embed is not None:
            return _affine(self.embed[ids], *self.ih[0])
        W, b = self.ih[0]  # W is (V, G*D)
        return W[ids] + b

    def _make_table(self, n_weights: int) -> Array | None:
        W, b = self.ih[0]
        if not is_small_table(self.vocab_size * b.shape[1], n_weights):
            return None
        if self.embed is not None:
            return _affine(self.embed, W, b)
        return self._arrays.xp.stack(list(W + b))  # W is a transpose; this makes rows contiguous


def _affine(x: Array, W: Array, b: Array) -> Array:
    """x (B, I), W (I, O), b (1, O) -> (B, O)."""
    return x @ W + b


Cell = Callable[[Array, Array, State], State]


def _cell(kind: str, D: int, arrays: Arrays) -> Cell:
    """The equations of torch.nn.RNNCell, GRUCell or LSTMCell.

    Returns:
        A function of gi and gh, (B, G*D), and the state before. It returns the state after.
    """
    tanh = arrays.xp.tanh

    def rnn(gi: Array, gh: Array, state: State) -> State:  # noqa: ARG001
        return (tanh(gi + gh),)

    def gru(gi: Array, gh: Array, state: State) -> State:
        (h,) = state
        rz = gi[:, : 2 * D] + gh[:, : 2 * D]
        rz = tanh(rz * 0.5) * 0.5 + 0.5  # sigmoid(x) = tanh(x / 2) / 2 + 1/2
        r, z = rz[:, :D], rz[:, D:]
        n = tanh(gi[:, 2 * D :] + r * gh[:, 2 * D :])
        return (n + z * (h - n),)

    # Because of that identity, one call of tanh computes all gates i, f, g, o of the LSTM.
    scale = np.full((1, 4 * D), 0.5, np.float32)
    scale[:, 2 * D : 3 * D] = 1.0  # g is tanh(x), not sigmoid(x)
    factor, offset = arrays.make(scale), arrays.make(1 - scale)

    def lstm(gi: Array, gh: Array, state: State) -> State:
        _, c = state
        gates = tanh((gi + gh) * factor) * factor + offset
        i, f, g, o = gates[:, :D], gates[:, D : 2 * D], gates[:, 2 * D : 3 * D], gates[:, 3 * D :]
        c = f * c + i * g
        return o * tanh(c), c

    return {"rnn": rnn, "gru": gru, "lstm": lstm}[kind]
