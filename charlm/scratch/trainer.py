"""Trains a model on a text, measures it, and samples from it.

Shapes: B sequences, T characters, V vocabulary, N characters of a text.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from charlm.scratch import Array, Ids, State, Weights
from charlm.scratch.functions import cross_entropy, softmax
from charlm.scratch.sgd import clip


class Model(Protocol):
    """What mlp.py, rnn.py, lstm.py, gru.py and gpt.py have in common."""

    weights: Weights

    @property
    def context(self) -> int | None:
        """The characters that it can look at; None if its state has what it needs of them."""

    def forward(self, ids: Ids, state: State = ()) -> tuple[Array, State]:
        """Logits (B, T, V) for ids (B, T), and the state after them; () is the first state."""

    def backward(self, d_logits: Array) -> Weights:
        """The gradient of every weight, from d_logits (B, T, V) of the last `forward`."""


class Optimizer(Protocol):
    """What the classes of sgd.py have in common."""

    def update(self, weights: Weights, grads: Weights, lr: float) -> None:
        """Change the weights in place. lr is the learning rate."""


class Trainer:
    """Reads a text as B sequences side by side, T characters of each at a step.

    Args:
        ids: (N,), the text. The sequences are shorter than T for a short text.
        B: sequences.
        T: characters of a sequence that are read at a step.
    """

    def __init__(self, model: Model, optimizer: Optimizer, ids: Ids, B: int, T: int) -> None:
        self.model, self.optimizer = model, optimizer
        self.rows, self.T = side_by_side(ids, B, T), T  # (B, N / B)
        self.t, self.state = 0, State()

    def step(self, lr: float) -> float:
        """One step with the learning rate lr. Returns the loss in nats per character."""
        piece = self.rows[:, self.t : self.t + self.T + 1]  # (B, T+1)
        logits, self.state = self.model.forward(piece[:, :-1], self.state)  # (B, T, V)
        loss, d_logits = cross_entropy(logits, piece[:, 1:])  # the next character is the target
        grads = self.model.backward(d_logits)
        self.optimizer.update(self.model.weights, clip(grads, 1.0), lr)
        self.t += self.T
        if self.t + 1 >= self.rows.shape[1]:  # the end: begin again
            self.t, self.state = 0, State()
        return loss


def side_by_side(ids: Ids, B: int, T: int) -> Ids:
    """Cut a text (N,) into B equal pieces (B, N / B), or into fewer, so that each has more than T
    characters."""
    B = max(1, min(B, len(ids) // (T + 1)))
    return ids[: len(ids) // B * B].reshape(B, -1)


def evaluate(model: Model, ids: Ids, T: int) -> float:
    """The loss of a text, ids (N,), in nats per character."""
    rows, state, total, count = side_by_side(ids, 64, T), State(), 0.0, 0  # (B, N / B)
    for t in range(0, rows.shape[1] - 1, T):
        piece = rows[:, t : t + T + 1]  # (B, T+1)
        logits, state = model.forward(piece[:, :-1], state)  # (B, T, V)
        total += cross_entropy(logits, piece[:, 1:])[0] * (piece.shape[1] - 1)
        count += piece.shape[1] - 1
    return total / count


def sample(model: Model, rng: np.random.Generator, first: int, length: int) -> list[int]:
    """`length` characters that the model writes after the character `first`."""
    ids, state = [first], State()
    for _ in range(length):
        seen = ids[-model.context :] if model.context else ids[-1:]
        logits, state = model.forward(np.array([seen]), state)  # (1, T, V)
        p = softmax(logits[0, -1])  # (V,)
        ids.append(int(rng.choice(len(p), p=p)))
    return ids[1:]
