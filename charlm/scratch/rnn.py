"""A recurrent network (Elman 1990), and back-propagation through time.

A layer reads x, the embedding or the h_new of the layer below, and its own h of the step before:

    gi = W_ih x + b_ih         the part of the input
    gh = W_hh h + b_hh         the part of the memory
    h_new = tanh(gi + gh)      other cells compute it in other ways (lstm.py, gru.py)

and then logits = W h_new + b from the h_new of the last layer.

Shapes: B sequences, T characters, V vocabulary, D units of a layer, L layers, G gates of a cell (1
for an RNN), N width of the input of a layer: D, or V for one-hot characters.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from charlm.scratch import Array, Ids, State, Weights
from charlm.scratch.functions import embed_back, linear, linear_back, start

Back = tuple[Array, Array, State]


class RNN:
    """An RNN of L layers between an embedding and a linear layer.

    Args:
        weights: embed.weight (V, D), not for one-hot; for the layers l = 0, 1, ... rnn.weight_ih_l0
            (G*D, N), rnn.weight_hh_l0 (G*D, D), rnn.bias_ih_l0 and rnn.bias_hh_l0 (G*D,);
            head.weight (V, D), head.bias (V,).

    Attributes:
        steps: of the last `forward`: for each layer and each t, the state before and the gates.
        d_state: of the last `backward`: the gradient of the state before the text.
    """

    G, PARTS = 1, 1  # gates of the cell; arrays in its state: h
    context: int | None = None  # its state remembers the characters before

    def __init__(self, weights: Weights) -> None:
        self.weights, self.d_state = weights, State()
        self.L = sum("weight_hh" in name for name in weights)

    @classmethod
    def random(cls, rng: np.random.Generator, V: int, D: int = 128, L: int = 1) -> Self:
        """A network with random weights."""
        weights = {"embed.weight": rng.normal(size=(V, D))}
        weights |= {"head.weight": start(rng, V, D), "head.bias": np.zeros(V)}
        for layer in range(L):
            for which in ("ih", "hh"):
                weights[f"rnn.weight_{which}_l{layer}"] = start(rng, cls.G * D, D)
                weights[f"rnn.bias_{which}_l{layer}"] = np.zeros(cls.G * D)
        return cls(weights)

    def step(self, gi: Array, gh: Array, state: State) -> tuple[State, State]:  # noqa: ARG002
        """The state after a character, (B, D) each, and the gates; gi and gh are (B, G*D)."""
        h_new = np.tanh(gi + gh)  # (B, D)
        return (h_new,), (h_new,)

    def step_back(self, d_state: State, state: State, gates: State) -> Back:  # noqa: ARG002
        """d_gi and d_gh, (B, G*D), and d_state of before, (B, D) each, without its part by W_hh.

        The argument d_state, (B, D) each, is that of after the step; `state` is that of before.
        """
        (d_h_new,), (h_new,) = d_state, gates  # (B, D)
        d_g = d_h_new * (1 - h_new**2)  # (B, D); tanh' = 1 - tanh^2
        return d_g, d_g, (np.zeros_like(d_h_new),)  # h is used in gh only

    def forward(self, ids: Ids, state: State = ()) -> tuple[Array, State]:
        """Logits (B, T, V) for ids (B, T), and the state after, (L, B, D) each; () is zero."""
        w, (B, T), (V, D) = self.weights, ids.shape, self.weights["head.weight"].shape
        state = state or (np.zeros((self.L, B, D)),) * self.PARTS
        E = w["embed.weight"] if "embed.weight" in w else np.eye(V)  # (V, N)
        self.ids, self.xs = ids, [E[ids]]  # (B, T, N), the input of every layer
        self.steps: list[list[tuple[State, State]]] = [[] for _ in range(self.L)]
        after: list[State] = []
        for layer in range(self.L):
            W_ih, W_hh, b_ih, b_hh = (w[name] for name in self.names(layer))
            gi = linear(self.xs[layer], W_ih, b_ih)  # (B, T, N) -> (B, T, G*D)
            s = tuple(part[layer] for part in state)  # (B, D) each
            self.xs.append(np.empty((B, T, D)))  # h_new of every step
            for t in range(T):
                gh = linear(s[0], W_hh, b_hh)  # (B, D) -> (B, G*D)
                s_new, gates = self.step(gi[:, t], gh, s)
                self.steps[layer].append((s, gates))
                s, self.xs[-1][:, t] = s_new, s_new[0]
            after.append(s)
        logits = linear(self.xs[-1], w["head.weight"], w["head.bias"])  # (B, T, V)
        return logits, tuple(np.stack(part) for part in zip(*after, strict=True))  # (L, B, D)

    def backward(self, d_logits: Array) -> Weights:
        """The gradient of every weight, from d_logits (B, T, V) of the last `forward`."""
        w, grads, d_states = self.weights, Weights(), list[State]()
        d_y, d_W, d_b = linear_back(d_logits, self.xs[-1], w["head.weight"])  # d_y (B, T, D)
        grads |= {"head.weight": d_W, "head.bias": d_b}
        for layer in reversed(range(self.L)):
            ih, hh, b_ih, b_hh = self.names(layer)
            (B, T, D), steps = d_y.shape, self.steps[layer]
            d_gi, d_gh = np.empty((2, B, T, self.G * D))
            d_s: State = (np.zeros((B, D)),) * self.PARTS  # there is no loss after the text
            for t in reversed(range(T)):
                d_s = (d_s[0] + d_y[:, t], *d_s[1:])  # h goes up and on, so both gradients add
                d_gi[:, t], d_gh[:, t], d_s = self.step_back(d_s, *steps[t])
                d_s = (d_s[0] + d_gh[:, t] @ w[hh], *d_s[1:])  # by W_hh: (B, G*D) @ (G*D, D)
            d_states.insert(0, d_s)
            h = np.stack([before[0] for before, _ in steps], axis=1)  # (B, T, D)
            _, grads[hh], grads[b_hh] = linear_back(d_gh, h, w[hh])  # W_hh is used T times
            d_y, grads[ih], grads[b_ih] = linear_back(d_gi, self.xs[layer], w[ih])  # (B, T, N)
        self.d_state = tuple(np.stack(part) for part in zip(*d_states, strict=True))  # (L, B, D)
        if "embed.weight" in w:
            grads["embed.weight"] = embed_back(d_y, self.ids, len(w["embed.weight"]))  # (V, D)
        return grads

    def names(self, layer: int) -> list[str]:
        """The names of W_ih, W_hh, b_ih and b_hh of a layer."""
        return [f"rnn.{it}_l{layer}" for it in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
