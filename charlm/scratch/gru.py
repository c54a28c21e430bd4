"""The GRU (Cho et al. 2014): gates as in the LSTM, but only one memory, h.

With gi and gh of rnn.py, each in three parts of D numbers:

    r = sigmoid(gi_r + gh_r)     reset: how much of h the new content sees
    z = sigmoid(gi_z + gh_z)     update: how much of h stays
    n = tanh(gi_n + r gh_n)      the new content

    h_new = (1 - z) n + z h

Shapes: B sequences, D units; G = 3 gates, in PyTorch's order r, z, n.
"""

from __future__ import annotations

import numpy as np

from charlm.scratch import Array, State
from charlm.scratch.functions import sigmoid
from charlm.scratch.rnn import RNN, Back


class GRU(RNN):
    """The network of rnn.py with the cell of a GRU: bias and weights have 3 D rows."""

    G = 3

    def step(self, gi: Array, gh: Array, state: State) -> tuple[State, State]:
        """The state h after a character, (B, D), and the gates; gi and gh are (B, 3D)."""
        (h,) = state  # (B, D)
        gi_r, gi_z, gi_n = np.split(gi, 3, axis=1)  # (B, 3D) -> 3 times (B, D)
        gh_r, gh_z, gh_n = np.split(gh, 3, axis=1)  # (B, 3D) -> 3 times (B, D)
        r, z = sigmoid(gi_r + gh_r), sigmoid(gi_z + gh_z)  # (B, D)
        n = np.tanh(gi_n + r * gh_n)  # (B, D)
        h_new = (1 - z) * n + z * h  # (B, D)
        return (h_new,), (r, z, n, gh_n)

    def step_back(self, d_state: State, state: State, gates: State) -> Back:
        """d_gi and d_gh, (B, 3D), and d_state of before, (B, D), without its part by W_hh."""
        (d_h_new,), (h,), (r, z, n, gh_n) = d_state, state, gates  # (B, D) each
        # of the sums before tanh and sigmoid; tanh' = 1 - tanh^2, sigmoid' = s (1 - s)
        d_n = d_h_new * (1 - z) * (1 - n**2)  # (B, D); dh_new/dn = 1 - z
        d_z = d_h_new * (h - n) * z * (1 - z)  # (B, D); dh_new/dz = h - n
        d_r = d_n * gh_n * r * (1 - r)  # (B, D); r multiplies gh_n
        d_gi = np.concatenate([d_r, d_z, d_n], axis=1)  # (B, 3D)
        d_gh = np.concatenate([d_r, d_z, d_n * r], axis=1)  # (B, 3D); gh_n is multiplied by r
        return d_gi, d_gh, (d_h_new * z,)  # (B, D); dh_new/dh = z
