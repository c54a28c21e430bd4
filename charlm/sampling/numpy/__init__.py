"""The networks written with array operations only, without a library for neural networks.

The same code runs on numpy arrays, so that sampling needs no torch, and on torch tensors, for a
GPU. charlm.sampling.native has the same networks in C.
"""

from __future__ import annotations

from charlm.config import GPTConfig, MLPConfig, ModelConfig
from charlm.sampling.numpy import gpt, mlp, recurrent
from charlm.sampling.numpy.arrays import NUMPY, Arrays, Weights

__all__ = ["NUMPY", "Arrays", "Network", "build_network"]

Network = recurrent.Recurrent | gpt.GPT | mlp.MLP


def build_network(
    config: ModelConfig, vocab_size: int, weights: Weights, arrays: Arrays = NUMPY
) -> Network:
    """The network of `config`.

    Args:
        vocab_size: V.
        weights: arrays with the names and shapes that charlm.models has, made with `arrays`.
        arrays: the array library.
    """
    if isinstance(config, GPTConfig):
        return gpt.GPT(config, vocab_size, weights, arrays)
    if isinstance(config, MLPConfig):
        return mlp.MLP(config, vocab_size, weights, arrays)
    return recurrent.Recurrent(config, vocab_size, weights, arrays)
