"""The networks written with array operations only, without a library for neural networks.

The same code runs on numpy arrays, so that sampling needs no torch, and on torch tensors, for a
GPU. charlm.sampling.native has the same networks in C.
"""

from __future__ import annotations

from charlm.config import GPTConfig, RecurrentConfig
from charlm.sampling.numpy import gpt, recurrent
from charlm.sampling.numpy.arrays import NUMPY, Arrays, Weights

__all__ = ["NUMPY", "Arrays", "Network", "build_network"]

Network = recurrent.Recurrent | gpt.GPT


def build_network(
    config: RecurrentConfig | GPTConfig, vocab_size: int, weights: Weights, arrays: Arrays = NUMPY
) -> Network:
    """The network of `config`.

    Args:
        vocab_size: V.
        weights: arrays with the names and shapes that charlm.models has, made with `arrays`.
        arrays: the array library.
    """
    if isinstance(config, GPTConfig):
        return gpt.GPT(config, vocab_size, weights, arrays)
    return recurrent.Recurrent(config, vocab_size, weights, arrays)
