"""The forward pass of a GPT, with a cache of keys and values.

Shapes: B texts, T characters read at once, N = B * T, V vocabulary, D n_embd, H heads, K = D / H,
F width of the MLP, P characters in the cache after this read. A row of x (N, D) is one character
of one text.

    x = embed(ids) + positions
    x = x + attention(norm(x));  x = x + mlp(norm(x))      in every block
    logits = head(norm(x))                                 of the last character
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config import GPTConfig
from charlm.config.model import POSITION_BASE
from charlm.sampling.engine import Engine
from charlm.sampling.numpy.arrays import Array, Arrays, Weights, linear

RMS_EPS = float(np.finfo(np.float32).eps)  # the default of torch.nn.RMSNorm
LAYER_EPS = 1e-5
# A context may be far longer than what is read, so memory for it grows with what is read. Most
# contexts are below MIN_CAPACITY. A long text is read in pieces, since scores need memory for each
# pair of a new character and one before it.
MIN_CAPACITY, MAX_PIECE = 512, 512  # characters


class GPT(Engine):
    """A GPT, and the keys and values of what it has read of B texts. An Engine, with numpy.

    Attributes:
        weights: by name; with tied weights, head.weight is embed.weight.
    """

    def __init__(
        self, config: GPTConfig, vocab_size: int, weights: Weights, arrays: Arrays
    ) -> None:
        self.vocab_size = vocab_size
        self.context = config.context
        self.config, self._arrays = config, arrays
        self.weights = {"head.weight": weights["embed.weight"]} | dict(weights)
        self._table = arrays.zeros(1, 0)  # see `positions`
        self._cache: list[tuple[Array, Array]] = []  # k, v of each block, (B, H, capacity, K)
        self._position = 0  # of the next character

    def restart(self) -> None:
        self._cache, self._position = [], 0

    def select(self, texts: list[int]) -> None:
        self._cache = [(k[texts], v[texts]) for k, v in self._cache]

    def read(self, ids: Array) -> Array:
        assert self._position + ids.shape[1] <= self.config.context, "the context is full"
        for t in range(0, ids.shape[1], MAX_PIECE):
            x = self._read(ids[:, t : t + MAX_PIECE])
        return linear(self._norm(x, "norm"), self.weights, "head")

    def _read(self, ids: Array) -> Array:
        """Read the next characters, ids (B, T). Returns the residual stream of the last, (B, D)."""
        (B, T), config = ids.shape, self.config
        self._reserve(B, self._position + T)
        x = self.embedded(ids, self._position).reshape(B * T, config.n_embd)  # (N, D)
        mask = self._arrays.make(_future(T, self._position + T)) if T > 1 else None
        for layer in range(config.n_layer):
            block = f"blocks.{layer}."
            y = self._norm(x, f"{block}attention_norm")
            x = x + self._attention(y, layer, (B, T), mask)
            x = x + self._mlp(self._norm(x, f"{block}mlp_norm"), f"{block}mlp.")
        self._position += T
        return x.reshape(B, T, -1)[:, -1]

    def embedded(self, ids: Array, start: int) -> Array:
        """The input of the first block.

        Args:
            ids: (B, T).
            start: the position of the first of the T characters.

        Returns:
            Embeddings plus positions, (B, T, D); for rope, embeddings alone.
        """
        x = self.weights["embed.weight"][ids]
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.n_embd)  # Vaswani et al. 2017, section 3.4
        if self.config.position == "rope":
            return x
        end = start + ids.shape[1]
        return x + self.positions(end)[0, start:end]

    def _attention(self, x: Array, layer: int, shape: tuple[int, int], mask: Array | None) -> Array:
        """out(softmax(q k^T / sqrt(K)) v), causal, with the cache. x (N, D) -> (N, D)."""
        (B, T), xp, name = shape, self._arrays.xp, f"blocks.{layer}.attention."
        qkv = linear(x, self.weights, f"{name}qkv")  # (N, 3D)
        qkv = qkv.reshape(B, T, 3, self.config.n_head, -1)  # (B, T, 3, H, K)
        qk = qkv[:, :, :2]  # (B, T, 2, H, K)
        if self.config.qk_norm:  # Henry et al. 2020
            qk = self._rms(qk)
        if self.config.position == "rope":
            qk = self._rotated(qk, T)
        k, v = self._cache[layer]
        start, P = self._position, self._position + T
        k[:, :, start:P] = qk[:, :, 1].swapaxes(1, 2)
        v[:, :, start:P] = qkv[:, :, 2].swapaxes(1, 2)
        q = qk[:, :, 0].swapaxes(1, 2)  # (B, H, T, K)
        scores = q @ k[:, :, :P].swapaxes(2, 3) * q.shape[-1] ** -0.5  # (B, H, T, P)
        if mask is not None:
            scores = scores + mask
        weights = xp.exp(scores - xp.amax(scores, axis=-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        y = weights @ v[:, :, :P]  # (B, H, T, K)
        y = y.swapaxes(1, 2).reshape(B * T, -1)  # (N, D)
        return linear(y, self.weights, f"{name}out")

    def _mlp(self, x: Array, name: str) -> Array:
        """out(gelu(up x)), out(relu(up x)^2), or out(silu(gate x) * up x). (N, D) -> (N, D)."""
        xp = self._arrays.xp
        if self.config.mlp == "swiglu":
            y = linear(x, self.weights, f"{name}gate_up")  # (N, 2F)
            F = y.shape[1] // 2
            gate, up = y[:, :F], y[:, F:]
            y = gate * (xp.tanh(gate * 0.5) * 0.5 + 0.5) * up  # silu(x) = x sigmoid(x)
        else:
            y = linear(x, self.weights, f"{name}up")
            y = _gelu(y, xp) if self.config.mlp == "gelu" else y.clip(0) ** 2
        return linear(y, self.weights, f"{name}out")

    def _norm(self, x: Array, name: str) -> Array:
        """torch.nn.LayerNorm or torch.nn.RMSNorm over the last dimension."""
        if self.config.norm == "layernorm":
            x = x - x.sum(-1, keepdims=True) / x.shape[-1]
            x = self._rms(x, LAYER_EPS)
        else:
            x = self._rms(x)
        x = x * self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias")
        return x if bias is None else x + bias

    def _rms(self, x: Array, eps: float = RMS_EPS) -> Array:
        """x / sqrt(mean x^2 + eps) over the last dimension."""
        mean = (x * x).sum(-1, keepdims=True) / x.shape[-1]
        return x / self._arrays.xp.sqrt(mean + eps)

    def _rotated(self, x: Array, T: int) -> Array:
        """Rotary positions (Su et al. 2021) of x (B, T, 2, H, K).

        Each pair (x_i, x_{i+K/2}) is rotated by the angle i of its position.
        """
        end = self._position + T
        cos, sin = self.positions(end)[:, self._position : end]  # each (T, 1, 1, K/2)
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return self._arrays.xp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    def positions(self, P: int) -> Array:
        """What depends on the position, for at least the first P positions.

        Returns:
            Vectors (1, N, D) with N >= P; or for rope the cosines and sines, (2, N, 1, 1, K/2).
        """
        config = self.config
        if config.position == "learned":
            return self.weights["position.table"][None]
        table = self._table
        if table.shape[1] < P:
            N = capacity(P, config.context)
            if config.position == "sinusoidal":
                angle = _angles(N, config.n_embd)
                new = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(1, N, -1)
            else:
                angle = _angles(N, config.n_embd // config.n_head)[:, None, None]
                new = np.stack([np.cos(angle), np.sin(angle)])
            self._table = table = self._arrays.make(new.astype(np.float32))
        return table

    def _reserve(self, B: int, P: int) -> None:
        """Make the cache large enough for the first P characters of B texts."""
        config = self.config
        if self._cache and self._cache[0][0].shape[2] >= P:
            return
        shape = (B, config.n_head, capacity(P, config.context), config.n_embd // config.n_head)
        old, self._cache = self._cache, []
        for layer in range(config.n_layer):
            new = self._arrays.zeros(*shape), self._arrays.zeros(*shape)
            for to, before in zip(new, old[layer] if old else (), strict=False):
                to[:, :, : before.shape[2]] = before
            self._cache.append(new)


def capacity(P: int, context: int) -> int:
    """The number of positions to allocate for P of them. Repeated growth costs little."""
    return min(context, max(MIN_CAPACITY, 2 * P))


def _future(T: int, P: int) -> NDArray[np.float32]:
    """The causal mask (T, P): -inf where the key comes after the query, otherwise 0.

    The T queries are at the last of the P positions.
    """
    return np.triu(np.full((T, P), -np.inf, np.float32), k=P - T + 1)


def _angles(n_positions: int, width: int) -> NDArray[Any]:
    """position / 10000^(2i/width), (n_positions, width/2); in float64, as large angles need it."""
    two_i = np.arange(0, width, 2)
    return np.outer(np.arange(n_positions), POSITION_BASE ** (-two_i / width))


def _gelu(x: Array, xp: Any) -> Array:
    """x Phi(x) with Phi(x) = (1 + erf(x / sqrt 2)) / 2 (Hendrycks & Gimpel 2016).

    erf is the approximation 7.1.26 of Abramowitz & Stegun; its error is at most 1.5e-7.
    """
    z = xp.abs(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.3275911 * z)
    poly = t * 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly += coefficient
        poly *= t
    poly *= xp.exp(-z * z)  # 1 - erf(z)
    # x Phi(x) = relu(x) - |x| (1 - erf(z)) / 2 for x of either sign
    poly *= z
    poly *= math.sqrt(0.5)
    return x.clip(0) - poly
