"""A network that sees the last N characters side by side (Bengio et al. 2003).

    x = the embeddings of the last N characters, one after the other
    z = W x + b, x <- tanh(z)     in every hidden layer
    logits = W x + b

`units` can be "relu" or "sigmoid" instead of "tanh". With `units="sigmoid"` and `one_hot=True` it
is the classic feed-forward network: sigmoid units, and inputs that are 1 for the character and 0
for all others.

Shapes: B sequences, T characters, V vocabulary, D width of an embedding (V for one-hot), N
characters that it sees, F units of a hidden layer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from charlm.scratch import Array, Ids, State, Weights
from charlm.scratch.functions import embed_back, linear, linear_back, sigmoid, start

Function = Callable[[Array], Array]  # elementwise
# f, and its slope f'(z) from a = f(z): tanh' = 1 - tanh^2, sigmoid' = sigmoid (1 - sigmoid)
UNITS: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "sigmoid": (sigmoid, lambda a: a * (1 - a)),
    "relu": (lambda z: np.maximum(z, 0), np.sign),  # the slope is 1 above 0, and 0 below
}


class MLP:
    """Predicts the next character from the last N characters.

    Args:
        weights: embed.weight (V, D), not for one-hot; layers.0.weight (F, N * D), layers.0.bias
            (F,); layers.1.weight (F, F) and so on; head.weight (V, F), head.bias (V,).
        N: characters that it sees.
        units: "tanh", "relu" or "sigmoid".
    """

    context: int | None = None  # its state has what it needs of the characters before

    def __init__(self, weights: Weights, N: int, units: str = "tanh") -> None:
        self.weights, self.N, (self.f, self.slope) = weights, N, UNITS[units]
        self.L = sum(name.startswith("layers.") for name in weights) // 2

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        V: int,
        N: int = 10,
        D: int = 24,
        F: int = 256,
        L: int = 1,
        units: str = "tanh",
        one_hot: bool = False,
    ) -> MLP:
        """A network with L hidden layers and random weights."""
        D = V if one_hot else D
        weights = {} if one_hot else {"embed.weight": rng.normal(size=(V, D))}
        for layer in range(L):
            weights[f"layers.{layer}.weight"] = start(rng, F, F if layer else N * D)
            weights[f"layers.{layer}.bias"] = np.zeros(F)
        weights |= {"head.weight": start(rng, V, F), "head.bias": np.zeros(V)}
        return cls(weights, N, units)

    def forward(self, ids: Ids, state: State = ()) -> tuple[Array, State]:
        """Logits (B, T, V) for ids (B, T). The state is the N - 1 characters before, (B, N - 1).

        A text starts as if N - 1 characters of number 0 had come before.
        """
        w, (B, T), N = self.weights, ids.shape, self.N
        before = state[0] if state else np.zeros((B, N - 1), np.int64)  # (B, N-1)
        text = np.concatenate([before, ids], axis=1)  # (B, N-1+T)
        # at t, the characters t-N+1 .. t of the text
        self.seen = np.stack([text[:, t : t + N] for t in range(T)], axis=1)  # (B, T, N)
        E = w["embed.weight"] if "embed.weight" in w else np.eye(len(w["head.bias"]))  # (V, D)
        x = E[self.seen].reshape(B, T, -1)  # (B, T, N, D) -> (B, T, N*D)
        self.xs = [x]  # the input of every layer, for `backward`
        for layer in range(self.L):
            z = linear(x, w[f"layers.{layer}.weight"], w[f"layers.{layer}.bias"])  # (B, T, F)
            x = self.f(z)  # (B, T, F)
            self.xs.append(x)
        return linear(x, w["head.weight"], w["head.bias"]), (text[:, T:],)  # (B, T, V), (B, N-1)

    def backward(self, d_logits: Array) -> Weights:
        """The gradient of every weight, from d_logits (B, T, V) of the last `forward`."""
        w, xs, grads = self.weights, self.xs, Weights()
        d_x, d_W, d_b = linear_back(d_logits, xs[-1], w["head.weight"])  # d_x (B, T, F)
        grads |= {"head.weight": d_W, "head.bias": d_b}  # (V, F), (V,)
        for layer in reversed(range(self.L)):
            x = xs[layer + 1]  # (B, T, F), the output of the layer
            d_z = d_x * self.slope(x)  # (B, T, F)
            d_x, d_W, d_b = linear_back(d_z, xs[layer], w[f"layers.{layer}.weight"])
            grads |= {f"layers.{layer}.weight": d_W, f"layers.{layer}.bias": d_b}
        if "embed.weight" in w:
            V, D = w["embed.weight"].shape
            d_x = d_x.reshape(*self.seen.shape, D)  # (B, T, N*D) -> (B, T, N, D)
            grads["embed.weight"] = embed_back(d_x, self.seen, V)  # (V, D)
        return grads
