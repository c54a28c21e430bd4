"""The forward step of a GPT with its cache of keys and values.

Shapes: B texts, T characters read at once, P characters in the cache, N = B * T, V vocabulary,
D n_embd, H heads, K = D / H head width. A row of x (N, D) is one character of one text.

    x = embed(ids) + positions
    x = x + attention(norm(x));  x = x + mlp(norm(x))      in every block
    logits = head(norm(x))                                 of the last character
"""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config import GPTConfig
from charlm.sampling.numpy.arrays import Array, Arrays, Shapes, Weights, linear

RMS_EPS = float(np.finfo(np.float32).eps)  # as PyTorch's RMSNorm has it where none is given
LAYER_EPS = 1e-5


def shapes(config: GPTConfig, vocab_size: int) -> Shapes:
    """What the weights are called, and their shapes."""
    V, D, M = vocab_size, config.n_embd, config.mlp_width
    first = ("gate_up", 2 * M) if config.mlp == "swiglu" else ("up", M)
    linears = {"attention.qkv": (3 * D, D), "attention.out": (D, D)}
    linears |= {f"mlp.{first[0]}": (first[1], D), "mlp.out": (D, M)}
    norms = [f"blocks.{layer}.{of}_norm" for layer in range(config.n_layer) for of in _PARTS]
    found: Shapes = {"embed.weight": (V, D)}
    for layer in range(config.n_layer):
        for name, shape in linears.items():
            found[f"blocks.{layer}.{name}.weight"] = shape
            if config.bias:
                found[f"blocks.{layer}.{name}.bias"] = shape[:1]
    for norm in (*norms, "norm"):
        found[f"{norm}.weight"] = (D,)
        if config.bias and config.norm == "layernorm":
            found[f"{norm}.bias"] = (D,)
    if config.position == "learned":
        found["position.table"] = (config.context, D)
    return found | ({} if config.tie_weights else {"head.weight": (V, D)})


_PARTS = ("attention", "mlp")


class GPT:
    """A GPT and the keys and values of what it has read of B texts."""

    def __init__(
        self, config: GPTConfig, vocab_size: int, weights: Weights, arrays: Arrays
    ) -> None:
        self.vocab_size = vocab_size
        self.context: int | None = config.context
        self.config, self._arrays = config, arrays
        self.weights = {"head.weight": weights["embed.weight"]} | dict(weights)
        self.positions = self._make_positions()
        self._cache: list[tuple[Array, Array]] = []  # k, v of each block, (B, H, context, K)
        self._past = 0  # P

    def fresh(self) -> GPT:
        """Another of the same weights, at the beginning of a text."""
        other = copy(self)
        other.restart()
        return other

    def restart(self) -> None:
        """Forget what was read."""
        self._cache, self._past = [], 0

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts read so far, some perhaps many times."""
        self._cache = [(k[texts], v[texts]) for k, v in self._cache]

    def read(self, ids: Array) -> Array:
        """Read T characters of each text, ids (B, T); the logits (B, V) of the next."""
        (B, T), config = ids.shape, self.config
        assert self._past + T <= config.context, "more characters than the context holds"
        self._make_room(B)
        x = self.embedded(ids, self._past).reshape(B * T, config.n_embd)
        mask = self._arrays.make(_future(T, self._past + T)) if T > 1 else None
        for layer in range(config.n_layer):
            block = f"blocks.{layer}."
            y = self._norm(x, f"{block}attention_norm")
            x = x + self._attention(y, layer, (B, T), mask)
            x = x + self._mlp(self._norm(x, f"{block}mlp_norm"), f"{block}mlp.")
        self._past += T
        last = x.reshape(B, T, -1)[:, -1]  # (B, D)
        return linear(self._norm(last, "norm"), self.weights, "head")

    def embedded(self, ids: Array, past: int) -> Array:
        """The characters ids (B, T) that come after `past` others, with their places: (B, T, D)."""
        x = self.weights["embed.weight"][ids]
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.n_embd)  # Vaswani et al. 2017, 3.4
        if self.config.position == "rope":
            return x
        return x + self.positions[past : past + ids.shape[1]]

    def _attention(self, x: Array, layer: int, shape: tuple[int, int], mask: Array | None) -> Array:
        """softmax(q k^T / sqrt(K)) v in each head, of all keys and values up to the query's own."""
        (B, T), xp, name = shape, self._arrays.xp, f"blocks.{layer}.attention."
        qkv = linear(x, self.weights, f"{name}qkv").reshape(B, T, 3, self.config.n_head, -1)
        qk = qkv[:, :, :2]  # (B, T, 2, H, K)
        if self.config.qk_norm:  # Henry et al. 2020
            qk = self._rms(qk)
        if self.config.position == "rope":
            qk = self._rotated(qk, T)
        k, v = self._cache[layer]
        start, P = self._past, self._past + T
        k[:, :, start:P] = qk[:, :, 1].swapaxes(1, 2)
        v[:, :, start:P] = qkv[:, :, 2].swapaxes(1, 2)
        q = qk[:, :, 0].swapaxes(1, 2)  # (B, H, T, K)
        scores = q @ k[:, :, :P].swapaxes(2, 3) * q.shape[-1] ** -0.5  # (B, H, T, P)
        if mask is not None:
            scores = scores + mask
        weights = xp.exp(scores - xp.amax(scores, axis=-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        y = weights @ v[:, :, :P]  # (B, H, T, K)
        return linear(y.swapaxes(1, 2).reshape(B * T, -1), self.weights, f"{name}out")

    def _mlp(self, x: Array, name: str) -> Array:
        """out(gelu(up x)), out(relu(up x)^2), or out(silu(gate x) * up x)."""
        xp = self._arrays.xp
        if self.config.mlp == "swiglu":
            y = linear(x, self.weights, f"{name}gate_up")
            width = y.shape[1] // 2
            gate, up = y[:, :width], y[:, width:]
            y = gate * (xp.tanh(gate * 0.5) * 0.5 + 0.5) * up  # silu(x) = x sigma(x)
        else:
            y = linear(x, self.weights, f"{name}up")
            y = _gelu(y, xp) if self.config.mlp == "gelu" else y.clip(0) ** 2
        return linear(y, self.weights, f"{name}out")

    def _norm(self, x: Array, name: str) -> Array:
        """LayerNorm: (x - mean) / deviation * gain + bias. RMSNorm: x / sqrt(mean x^2) * gain."""
        if self.config.norm == "layernorm":
            x = x - x.sum(-1, keepdims=True) / x.shape[-1]
            x = self._rms(x, LAYER_EPS)
        else:
            x = self._rms(x)
        x = x * self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias")
        return x if bias is None else x + bias

    def _rms(self, x: Array, eps: float = RMS_EPS) -> Array:
        """x / sqrt(mean x^2 + eps) over the last axis."""
        mean = (x * x).sum(-1, keepdims=True) / x.shape[-1]
        return x / self._arrays.xp.sqrt(mean + eps)

    def _rotated(self, x: Array, T: int) -> Array:
        """The pairs (x_i, x_{i+K/2}) of x (B, T, 2, H, K) turned by the angle of their place."""
        cos, sin = self.positions[:, self._past : self._past + T]  # each (T, 1, 1, K/2)
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        return self._arrays.xp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    def _make_positions(self) -> Array:
        """By place: vectors (context, D), or for rope cos and sin (2, context, 1, 1, K/2)."""
        config = self.config
        if config.position == "learned":
            return self.weights["position.table"]
        if config.position == "sinusoidal":
            angle = _angles(config.context, config.n_embd)
            table = np.stack([np.sin(angle), np.cos(angle)], axis=-1)  # (context, D/2, 2)
            return self._arrays.make(table.reshape(config.context, -1).astype(np.float32))
        angle = _angles(config.context, config.n_embd // config.n_head)[:, None, None]
        return self._arrays.make(np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32))

    def _make_room(self, B: int) -> None:
        """A cache for B texts, if there is none yet."""
        config = self.config
        if self._cache:
            return
        shape = (B, config.n_head, config.context, config.n_embd // config.n_head)
        self._cache = [
            (self._arrays.zeros(*shape), self._arrays.zeros(*shape)) for _ in range(config.n_layer)
        ]


def _future(T: int, P: int) -> NDArray[np.float32]:
    """(T, P), -inf where the key comes after the query; the T queries are the last of P places."""
    return np.triu(np.full((T, P), -np.inf, np.float32), k=P - T + 1)


def _angles(places: int, width: int) -> NDArray[Any]:
    """pos / 10000^(2i/width), (places, width/2), in float64: large angles need it."""
    i = np.arange(0, width, 2)
    return np.outer(np.arange(places), 10000.0 ** (-i / width))


def _gelu(x: Array, xp: Any) -> Array:
    """x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2 (Hendrycks & Gimpel 2016).

    erf by Abramowitz & Stegun 7.1.26, which is off by 1.5e-7 at most.
    """
    z = xp.abs(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.3275911 * z)
    poly = t * 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly += coefficient
        poly *= t
    poly *= xp.exp(-z * z)  # 1 - erf(z)
    # x Phi(x) = relu(x) - |x| (1 - erf(z)) / 2, whatever the sign of x
    poly *= z
    poly *= math.sqrt(0.5)
    return x.clip(0) - poly
