"""The forward step of every network in plain arrays, from scratch: numpy's, so that writing needs
no torch, or torch's, for a GPU. Chunk once, for both; charlm.sampling.native has it in C."""

from __future__ import annotations

from charlm.config import GPTConfig, RecurrentConfig
from charlm.errors import DamageError
from charlm.sampling.numpy import gpt, recurrent
from charlm.sampling.numpy.arrays import NUMPY, Arrays, Weights

__all__ = ["NUMPY", "Arrays", "Network", "build_network"]

Network = recurrent.Recurrent | gpt.GPT


def build_network(
    config: RecurrentConfig | GPTConfig, vocab_size: int, weights: Weights, arrays: Arrays = NUMPY
) -> Network:
    """The network of `config` with weights by their names, as models have them.

    Raises:
        DamageError: the weights are not of this network.
    """
    wanted = (
        gpt.shapes(config, vocab_size)
        if isinstance(config, GPTConfig)
        else recurrent.shapes(config, vocab_size)
    )
    found = {name: tuple(array.shape) for name, array in weights.items()}
    if found != wanted:
        wrong = sorted(name for name, _ in found.items() ^ wanted.items())
        raise DamageError(f"weights {', '.join(dict.fromkeys(wrong))}")
    if isinstance(config, GPTConfig):
        return gpt.GPT(config, vocab_size, weights, arrays)
    return recurrent.Recurrent(config, vocab_size, weights, arrays)
