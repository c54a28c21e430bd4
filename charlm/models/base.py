"""The interface of a model, for the code that trains, evaluates and samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from charlm.config import ModelConfig

State = tuple[Tensor, ...]
"""The state of a model after a text: hidden states, keys and values, or the last characters."""
Forward = Callable[[Tensor, State | None], tuple[Tensor, State]]
"""A forward pass: from ids (B, T) and a state, or None, to logits (B, T, V) and the state after."""


class CharModel(nn.Module):
    """A language model over V characters.

    Attributes:
        config: the settings that it was built from.
        vocab_size: V.
        context: the number of characters that it can read from one state, or None for no limit.
    """

    config: ModelConfig
    vocab_size: int
    context: int | None = None

    @abstractmethod
    def forward(
        self, ids: Tensor, state: State | None = None, keep_state: bool = True
    ) -> tuple[Tensor, State]:
        """Read T characters of B texts.

        Args:
            ids: (B, T) integers.
            state: the state after the preceding text, or None at the start of a text.
            keep_state: whether to return the state after the last character.

        Returns:
            logits (B, T, V) of the character that follows each position, and the state after the
            last one; () without `keep_state`.
        """

    @abstractmethod
    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices that map one hidden layer to another: neither those that look up a character
        or a position, nor the output layer."""

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return next(self.parameters()).device

    def count_parameters(self) -> int:
        """The number of trainable parameters; a shared matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


@contextmanager
def evaluating(model: CharModel) -> Iterator[None]:
    """Put a model into evaluation mode (no dropout), and restore its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
