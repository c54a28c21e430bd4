"""A feed-forward network that sees the last N characters side by side (Bengio et al. 2003).

Shapes: B batch, T time (characters), V vocabulary, N context, D hidden_size, E n_embd, I the input
of a layer: N E for the first one (N V for one-hot), D for the others.

    x = the embeddings of the last N characters, the oldest first     (B, T, N*E)
    x = f(W x + b)                                                    n_layer times, (B, T, D)
    logits = W x + b                                                  (B, T, V)

f is tanh, relu or the logistic function. Before the first character of a text, the network sees
characters of number 0, as the network of charlm.scratch.mlp does. A product of W with one-hot
vectors is the sum of the columns of W for the N characters.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.config import MLPConfig
from charlm.models.base import CharModel, State

_ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu}


class MLP(CharModel):
    """Hidden layers over the embeddings of the last N characters.

    The state is the ids of the last N - 1 characters, (1, B, N-1) int64. Its second dimension is
    that of the texts, as in the state of a recurrent network.
    """

    config: MLPConfig
    layers: Any  # nn.ModuleList of nn.Linear

    def __init__(self, config: MLPConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        one_hot = config.input == "one_hot"
        self.embed = None if one_hot else nn.Embedding(vocab_size, config.n_embd)
        widths = [config.input_width(vocab_size), *[config.hidden_size] * config.n_layer]
        self.layers = nn.ModuleList(map(nn.Linear, widths, widths[1:]))
        self.head = nn.Linear(config.hidden_size, vocab_size)
        self.dropout = nn.Dropout(config.dropout)
        self._initialise(config)

    def forward(
        self, ids: Tensor, state: State | None = None, keep_state: bool = True
    ) -> tuple[Tensor, State]:
        seen, after = self.look_back(ids, state)
        x = self.first_layer(seen)  # (B, T, D)
        for layer in self.layers[1:]:
            x = layer(self.dropout(self.activate(x)))
        logits = self.head(self.dropout(self.activate(x)))  # (B, T, V)
        return logits, after if keep_state else ()

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices of all hidden layers. With one-hot input the first one, too, though it looks
        up characters: a network of one layer has no other."""
        return [p for p in self.layers.parameters() if p.ndim == 2]

    def look_back(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The ids that the network sees at each position of ids (B, T): (B, T, N), and the state
        after them."""
        N = self.config.context
        before = state[0][0] if state else ids.new_zeros(len(ids), N - 1)
        text = torch.cat([before, ids], dim=1)  # (B, N-1+T)
        T = ids.shape[1]
        # columns, and not `unfold`, which cannot be exported to ONNX for every T
        columns = torch.arange(T, device=ids.device)[:, None] + torch.arange(N, device=ids.device)
        return text[:, columns], (text[None, :, T:],)

    def first_layer(self, seen: Tensor) -> Tensor:
        """W x + b of the first layer for the characters that it sees: (B, T, N) to (B, T, D)."""
        first: nn.Linear = self.layers[0]
        if self.embed is not None:
            x: Tensor = self.embed(seen).flatten(2)  # (B, T, N, E) -> (B, T, N*E)
            return F.linear(x, first.weight, first.bias)
        columns = seen + torch.arange(self.config.context, device=seen.device) * self.vocab_size
        y = F.embedding_bag(columns.flatten(0, 1), first.weight.t(), mode="sum")  # (B*T, D)
        return y.view(*seen.shape[:2], -1) + first.bias

    def activate(self, x: Tensor) -> Tensor:
        """f, elementwise."""
        return _ACTIVATIONS[self.config.activation](x)

    @torch.no_grad()
    def _initialise(self, config: MLPConfig) -> None:
        """Normal with a variance of 1 / I, so that W x is about as large as x; with relu, 2 / I,
        since half of W x becomes 0 (He et al. 2015). For one-hot x, I is N. Biases are 0."""
        gain = 2 if config.activation == "relu" else 1
        for i, layer in enumerate(self.layers):
            one_hot = i == 0 and config.input == "one_hot"
            inputs = config.context if one_hot else layer.in_features
            layer.weight.normal_(std=math.sqrt(gain / inputs))
            layer.bias.zero_()
        self.head.bias.zero_()
