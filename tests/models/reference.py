"""The networks of charlm.models as charlm.scratch writes them, and what only charlm.models has.

charlm.scratch has the recurrent networks, and a GPT with learned positions, layer norm and GELU.
The other options of a GPT are here, forward only.
"""

from __future__ import annotations

import math

import numpy as np

from charlm.config import GPTConfig
from charlm.scratch import Array, Ids, State, Weights
from charlm.scratch.functions import sigmoid, softmax
from charlm.scratch.gpt import GPT
from charlm.scratch.gru import GRU
from charlm.scratch.lstm import LSTM
from charlm.scratch.rnn import RNN

__all__ = ["RECURRENT", "Array", "EveryGPT", "State", "angles", "sinusoids", "softmax"]

RECURRENT: dict[str, type[RNN]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


class EveryGPT(GPT):
    """A GPT with the options of a config; `backward` only for those that charlm.scratch has."""

    def __init__(self, config: GPTConfig, weights: Weights) -> None:
        table = np.zeros((config.context, config.n_embd))
        biases = {
            name.replace(".weight", ".bias"): np.zeros(len(weight))
            for name, weight in weights.items()
            if name.startswith(("blocks.", "norm."))
        }
        super().__init__({"position.table": table} | biases | weights, config.n_head)
        self.config = config

    def embed(self, ids: Ids) -> Array:
        """Adds sinusoids to embeddings times sqrt(D); with rope nothing, as its table is 0."""
        if self.config.position == "sinusoidal":
            x: Array = self.weights["embed.weight"][ids] * math.sqrt(self.config.n_embd)
            return x + sinusoids(ids.shape[1], self.config.n_embd)
        return super().embed(ids)

    def heads(self, qkv: Array) -> Array:
        """Normalises and rotates queries and keys."""
        q, k, v = super().heads(qkv)
        if self.config.qk_norm:
            q, k = _rms_normalised(q), _rms_normalised(k)
        if self.config.position == "rope":
            q, k = _rotated(q), _rotated(k)
        return np.stack([q, k, v])

    def mlp(self, name: str, x: Array) -> Array:
        """out(gelu(up x)), out(relu(up x)^2), or out(silu(gate x) * up x)."""
        if self.config.mlp == "swiglu":
            gate, up = np.split(self.linear(f"{name}.gate_up", x), 2, axis=-1)
            return self.linear(f"{name}.out", gate * sigmoid(gate) * up)
        if self.config.mlp == "relu2":
            return self.linear(f"{name}.out", np.maximum(self.linear(f"{name}.up", x), 0) ** 2)
        return super().mlp(name, x)

    def norm(self, name: str, x: Array) -> Array:
        """LayerNorm, or RMSNorm: x / sqrt(mean x^2) * gain."""
        if self.config.norm == "rmsnorm":
            return _rms_normalised(x) * self.weights[f"{name}.weight"]
        return super().norm(name, x)


def _rms_normalised(x: Array) -> Array:
    eps = np.finfo(np.float64).eps
    y: Array = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
    return y


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


def _rotated(x: Array) -> Array:
    """x (..., T, K) as complex numbers x_i + x_{i + K/2} j, times e^(j angle[t, i])."""
    real, imaginary = np.split(x, 2, axis=-1)
    z = (real + 1j * imaginary) * np.exp(1j * angles(*x.shape[-2:]))
    return np.concatenate([z.real, z.imag], axis=-1)
