"""What trainer, evaluator and sampler know of a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from charlm.config import GPTConfig, RecurrentConfig

State = tuple[Tensor, ...]
"""What a model remembers of the text so far: hidden states, or keys and values."""


class CharModel(nn.Module):
    """A language model over V characters.

    Attributes:
        config: what it was built by.
        vocab_size: V.
        context: the most characters it can look at, or None where the state has no end.
        bf16_pays_on_cpu: whether its training step is faster in bfloat16 on a CPU that has it.
        compile_pays_on_cuda: whether torch.compile makes its training step faster on a GPU.
    """

    config: RecurrentConfig | GPTConfig
    vocab_size: int
    context: int | None = None
    bf16_pays_on_cpu = False
    compile_pays_on_cuda = False

    @abstractmethod
    def forward(
        self, ids: Tensor, state: State | None = None, keep_state: bool = True
    ) -> tuple[Tensor, State]:
        """Read T characters of B texts.

        Args:
            ids: (B, T) integers.
            state: what an earlier call returned for the text just before; None at a text's start.
            keep_state: whether the state after the last character is wanted.

        Returns:
            logits (B, T, V) of the character after each one read, and the state after the last, or
            () where it is not wanted.
        """

    @abstractmethod
    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices that map one hidden layer to another: not those that look a character or a
        place up, nor the output layer."""

    def count_parameters(self) -> int:
        """How many numbers training adjusts; a shared matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


@contextmanager
def evaluating(model: CharModel) -> Iterator[None]:
    """Dropout off inside, and afterwards the whole model in the mode it was in before."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
