"""A GPT: a transformer that predicts the next character (Vaswani et al. 2017; Radford et al. 2019).

    x = embedding + position
    x <- x + attention(norm(x))
    x <- x + mlp(norm(x))            these two in every block
    logits = W norm(x)

Shapes: B sequences, T characters, at most `context`, V vocabulary, D width, L blocks, H heads,
K = D / H width of a head, F = 4 D units of the MLP.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from charlm.scratch import Array, Ids, State, Weights, parts
from charlm.scratch.functions import embed_back, linear, linear_back, start


class GPT:
    """A GPT of H heads, with learned positions, layer norm, GELU, no dropout. Weights: `random`."""

    attend, attend_back = staticmethod(parts.attention), staticmethod(parts.attention_back)

    def __init__(self, weights: Weights, H: int) -> None:
        self.weights, self.H, self.grads = weights, H, Weights()
        self.L = sum("attention_norm.weight" in name for name in weights)
        self.context: int | None = len(weights["position.table"])  # characters it can look at
        self.kept: dict[str, Any] = {}  # of the last `forward`, for `backward`

    @classmethod
    def random(cls, rng: np.random.Generator, V: int, D: int, L: int, H: int, context: int) -> GPT:
        """A network with random weights."""
        weights = {"embed.weight": rng.normal(size=(V, D)), "head.weight": start(rng, V, D)}
        weights["position.table"] = rng.normal(size=(context, D))
        shapes: dict[str, tuple[int, ...]] = {"norm": (D,)}
        for block in (f"blocks.{layer}" for layer in range(L)):
            shapes |= {f"{block}.attention_norm": (D,), f"{block}.attention.qkv": (3 * D, D)}
            shapes |= {f"{block}.attention.out": (D, D), f"{block}.mlp_norm": (D,)}
            shapes |= {f"{block}.mlp.up": (4 * D, D), f"{block}.mlp.out": (D, 4 * D)}
        for name, shape in shapes.items():
            weights[f"{name}.weight"] = start(rng, *shape) if len(shape) == 2 else np.ones(shape)
            weights[f"{name}.bias"] = np.zeros(shape[0])
        return cls(weights, H)

    def forward(self, ids: Ids, state: State = ()) -> tuple[Array, State]:  # noqa: ARG002
        """Logits (B, T, V) for ids (B, T). It has no state: it looks at the characters again."""
        self.kept["ids"], x = ids, self.embed(ids)  # (B, T), (B, T, D)
        for block in (f"blocks.{layer}" for layer in range(self.L)):
            x = x + self.attention(f"{block}.attention", self.norm(f"{block}.attention_norm", x))
            x = x + self.mlp(f"{block}.mlp", self.norm(f"{block}.mlp_norm", x))  # (B, T, D)
        x = self.kept["head"] = self.norm("norm", x)  # (B, T, D)
        return x @ self.weights["head.weight"].T, ()  # (B, T, D) @ (D, V) -> (B, T, V)

    def backward(self, d_logits: Array) -> Weights:
        """The gradient of every weight, from d_logits (B, T, V) of the last `forward`."""
        w, ids, grads = self.weights, self.kept["ids"], Weights()
        self.grads = grads
        d_y, grads["head.weight"], _ = linear_back(d_logits, self.kept["head"], w["head.weight"])
        d_x = self.norm_back("norm", d_y)  # (B, T, D)
        for block in (f"blocks.{layer}" for layer in reversed(range(self.L))):
            # x goes around each part and into it, so both gradients add
            d_x = d_x + self.norm_back(f"{block}.mlp_norm", self.mlp_back(f"{block}.mlp", d_x))
            d_y = self.attention_back(f"{block}.attention", d_x)  # (B, T, D)
            d_x = d_x + self.norm_back(f"{block}.attention_norm", d_y)  # (B, T, D)
        grads["embed.weight"] = embed_back(d_x, ids, len(w["embed.weight"]))  # (V, D)
        grads["position.table"] = np.zeros_like(w["position.table"])  # (context, D)
        grads["position.table"][: ids.shape[1]] = d_x.sum(axis=0)  # (B, T, D) -> (T, D)
        return grads

    def embed(self, ids: Ids) -> Array:  # (B, T) -> (B, T, D)
        x: Array = self.weights["embed.weight"][ids]
        return x + self.weights["position.table"][: ids.shape[1]]

    def attention(self, name: str, x: Array) -> Array:  # (B, T, D) -> (B, T, D)
        q, k, v = self.heads(self.linear(f"{name}.qkv", x))  # (B, H, T, K) each
        y, self.kept[name] = self.attend(q, k, v)  # (B, H, T, K)
        return self.linear(f"{name}.out", y.swapaxes(1, 2).reshape(x.shape))  # (B, T, D)

    def attention_back(self, name: str, d_y: Array) -> Array:  # (B, T, D) -> (B, T, D)
        B, T, D = d_y.shape
        d_y = self.linear_back(f"{name}.out", d_y)  # (B, T, D)
        d_y = d_y.reshape(B, T, self.H, -1).swapaxes(1, 2)  # (B, H, T, K)
        d_qkv = np.stack(self.attend_back(d_y, self.kept[name]))  # (3, B, H, T, K)
        d_qkv = d_qkv.transpose(1, 3, 0, 2, 4).reshape(B, T, 3 * D)  # (B, T, 3D)
        return self.linear_back(f"{name}.qkv", d_qkv)  # (B, T, D)

    def heads(self, qkv: Array) -> Array:  # (B, T, 3D) -> (3, B, H, T, K)
        B, T, _ = qkv.shape
        return qkv.reshape(B, T, 3, self.H, -1).transpose(2, 0, 3, 1, 4)

    def mlp(self, name: str, x: Array) -> Array:  # (B, T, D) -> (B, T, D)
        y, self.kept[name] = parts.gelu(self.linear(f"{name}.up", x))  # (B, T, F)
        return self.linear(f"{name}.out", y)  # (B, T, D)

    def mlp_back(self, name: str, d_y: Array) -> Array:  # (B, T, D) -> (B, T, D)
        d_y = parts.gelu_back(self.linear_back(f"{name}.out", d_y), self.kept[name])  # (B, T, F)
        return self.linear_back(f"{name}.up", d_y)  # (B, T, D)

    def linear(self, name: str, x: Array) -> Array:  # (B, T, N) -> (B, T, M) for W (M, N)
        self.kept[name] = x
        return linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def linear_back(self, name: str, d_y: Array) -> Array:  # (B, T, M) -> (B, T, N)
        d_x, d_W, d_b = linear_back(d_y, self.kept[name], self.weights[f"{name}.weight"])
        self.grads |= {f"{name}.weight": d_W, f"{name}.bias": d_b}
        return d_x

    def norm(self, name: str, x: Array) -> Array:  # (B, T, D) -> (B, T, D)
        gain, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        y, self.kept[name] = parts.layer_norm(x, gain, bias)
        return y

    def norm_back(self, name: str, d_y: Array) -> Array:  # (B, T, D) -> (B, T, D)
        d_x, d_gain, d_bias = parts.layer_norm_back(d_y, self.kept[name])
        self.grads |= {f"{name}.weight": d_gain, f"{name}.bias": d_bias}
        return d_x
