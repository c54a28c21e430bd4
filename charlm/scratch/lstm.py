"""The LSTM (Hochreiter & Schmidhuber 1997; with the forget gate of Gers et al. 2000).

A second memory c passes from step to step with no matrix in between. Gates, numbers from 0 to 1,
decide what is written to it, kept in it and read from it. With z = gi + gh of rnn.py, in four parts
of D numbers:

    i = sigmoid(z_i)    what is written        f = sigmoid(z_f)    what is kept
    g = tanh(z_g)       the new content        o = sigmoid(z_o)    what is read

    c_new = f c + i g
    h_new = o tanh(c_new)

Shapes: B sequences, D units; G = 4 gates, in PyTorch's order i, f, g, o.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from charlm.scratch import Array, State
from charlm.scratch.functions import sigmoid
from charlm.scratch.rnn import RNN, Back


class LSTM(RNN):
    """The network of rnn.py with the cell of an LSTM: bias and weights have 4 D rows."""

    G, PARTS = 4, 2  # the state is h and c

    @classmethod
    def random(cls, rng: np.random.Generator, V: int, D: int = 128, L: int = 1) -> Self:
        """A network with random weights; it begins with f = sigmoid(1), so it remembers."""
        model = super().random(rng, V, D, L)
        for layer in range(L):
            model.weights[f"rnn.bias_ih_l{layer}"][D : 2 * D] = 1  # (Jozefowicz et al. 2015)
        return model

    def step(self, gi: Array, gh: Array, state: State) -> tuple[State, State]:
        """The state h, c after a character, (B, D) each, and the gates; gi and gh (B, 4D)."""
        _, c = state  # (B, D); h is in gh
        z_i, z_f, z_g, z_o = np.split(gi + gh, 4, axis=1)  # (B, 4D) -> 4 times (B, D)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)  # (B, D)
        c_new = f * c + i * g  # (B, D)
        h_new = o * np.tanh(c_new)  # (B, D)
        return (h_new, c_new), (i, f, g, o, c_new)

    def step_back(self, d_state: State, state: State, gates: State) -> Back:
        """d_gi and d_gh, (B, 4D), and d_state of before, (B, D) each, without its part by W_hh."""
        (d_h_new, d_c_new), (_, c), (i, f, g, o, c_new) = d_state, state, gates  # (B, D) each
        tanh_c = np.tanh(c_new)  # (B, D)
        # c_new goes into the next step and into h_new = o tanh(c_new), so both gradients add
        d_c_new = d_c_new + d_h_new * o * (1 - tanh_c**2)  # (B, D)
        d_i, d_f, d_g = d_c_new * g, d_c_new * c, d_c_new * i  # (B, D), from c_new = f c + i g
        d_o = d_h_new * tanh_c  # (B, D)
        parts = [  # d_z_i, d_z_f, d_z_g, d_z_o
            d_i * i * (1 - i),  # (B, D); sigmoid' = s (1 - s)
            d_f * f * (1 - f),
            d_g * (1 - g**2),  # tanh' = 1 - tanh^2
            d_o * o * (1 - o),
        ]
        d_z = np.concatenate(parts, axis=1)  # 4 times (B, D) -> (B, 4D)
        return d_z, d_z, (np.zeros_like(d_h_new), d_c_new * f)  # dc_new/dc = f
