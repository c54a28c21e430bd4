"""The forward pass of an MLP, for the last of the characters that are read.

Shapes: B texts, V vocabulary, N context, D hidden_size, E n_embd.

    y = the sum of W_n e_n over the N characters that it sees, plus b      (B, D)

W_n (D, E) are the columns of the first matrix for the place n of the context, and e_n (E,) is the
embedding of the character there. W_n e_n depends on n and on the character only, so it is read from
a table (N * V, D) where that is small. With one-hot input, the table is the first matrix.
"""

from __future__ import annotations

import numpy as np

from charlm.config import MLPConfig
from charlm.sampling.engine import Engine
from charlm.sampling.numpy.arrays import Array, Arrays, Weights, is_small_table, linear


class MLP(Engine):
    """An MLP and the last characters that it read of B texts. An Engine, with numpy.

    Attributes:
        weights: by name.
        table: (N * V, D): row n V + id is W_n e of the character id. None if it would be large.
    """

    context: int | None = None

    def __init__(
        self, config: MLPConfig, vocab_size: int, weights: Weights, arrays: Arrays
    ) -> None:
        self.vocab_size = vocab_size
        self.config, self.weights, self._arrays = config, weights, arrays
        self.table = self._make_table()
        self._offsets = arrays.make(np.arange(config.context) * vocab_size)  # (N,), of the places
        self._before: Array | None = None  # (B, N-1), the last ids

    def restart(self) -> None:
        self._before = None

    def select(self, texts: list[int]) -> None:
        if self._before is not None:
            self._before = self._before[texts]

    def read(self, ids: Array) -> Array:
        seen = self.look_back(ids)  # (B, N)
        if self.table is not None:
            x = self.table[self.rows_of(seen)].sum(1) + self.weights["layers.0.bias"]  # (B, D)
        else:
            x = linear(self.embedded(seen), self.weights, "layers.0")
        x = self._activate(x)
        for layer in range(1, self.config.n_layer):
            x = self._activate(linear(x, self.weights, f"layers.{layer}"))
        return linear(x, self.weights, "head")

    def look_back(self, ids: Array) -> Array:
        """Read ids (B, T). Returns the characters that the network sees at the last one, (B, N):
        before the first character of a text, those of number 0."""
        B, N = len(ids), self.config.context
        if self._before is None:
            self._before = self._arrays.make(np.zeros((B, N - 1), np.int64))
        recent = ids[:, -N:]
        seen = self._arrays.xp.concatenate([self._before[:, recent.shape[1] - 1 :], recent], -1)
        self._before = seen[:, 1:]
        return seen

    def rows_of(self, seen: Array) -> Array:
        """The rows of the table for the characters seen (B, N): (B, N)."""
        return seen + self._offsets

    def embedded(self, seen: Array) -> Array:
        """The embeddings of the characters seen (B, N), side by side: (B, N*E)."""
        return self.weights["embed.weight"][seen].reshape(len(seen), -1)

    def _activate(self, x: Array) -> Array:
        match self.config.activation:
            case "relu":
                return x.clip(0)
            case "tanh":
                return self._arrays.xp.tanh(x)
            case "sigmoid":  # sigmoid(x) = tanh(x / 2) / 2 + 1/2
                return self._arrays.xp.tanh(x * 0.5) * 0.5 + 0.5

    def _make_table(self) -> Array | None:
        W, N, V = self.weights["layers.0.weight"], self.config.context, self.vocab_size
        n_weights = sum(int(np.prod(w.shape)) for w in self.weights.values())
        is_small = is_small_table(N * V * len(W), n_weights)
        if self.config.input == "one_hot":  # `stack` makes the rows contiguous
            return self._arrays.xp.stack(list(W.T)) if is_small else W.T
        if not is_small:
            return None
        embed, E = self.weights["embed.weight"], self.config.n_embd
        places = [embed @ W[:, n * E : (n + 1) * E].T for n in range(N)]  # (V, D) each
        return self._arrays.xp.concatenate(places)
