"""The networks: `model(ids, state) -> (logits, state)`. A model itself keeps no state."""

from __future__ import annotations

import torch

from charlm.config import GPTConfig, MLPConfig, ModelConfig
from charlm.config.shapes import count_weights
from charlm.errors import SMALLER_MODEL, ConfigError
from charlm.machine import usable_memory
from charlm.models.base import CharModel, State
from charlm.models.gpt import GPT
from charlm.models.mlp import MLP
from charlm.models.recurrent import Recurrent
from charlm.randomness import torch_seed

__all__ = ["GPT", "MLP", "CharModel", "Recurrent", "State", "build_model"]


def build_model(config: ModelConfig, vocab_size: int, seed: int) -> CharModel:
    """Build a model with random weights on the CPU; the same seed gives the same weights.

    Raises:
        ConfigError: it needs more memory than there is.
    """
    _refuse_too_large(config, vocab_size)
    # PyTorch's layers initialise themselves from the global generator: seed it, then restore it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(seed, "weights"))
        if isinstance(config, GPTConfig):
            return GPT(config, vocab_size)
        if isinstance(config, MLPConfig):
            return MLP(config, vocab_size)
        return Recurrent(config, vocab_size)


def _refuse_too_large(config: ModelConfig, vocab_size: int) -> None:
    needed = 4 * count_weights(config, vocab_size)
    if isinstance(config, GPTConfig) and config.position != "learned":
        width = config.n_embd // (config.n_head if config.position == "rope" else 1)
        needed += 20 * config.context * width  # angles, sines and cosines in float64
    refuse_beyond_memory(needed, "a model of this size", SMALLER_MODEL)


def refuse_beyond_memory(needed: int, what: str, advice: str) -> None:
    """Check that there are as many bytes of memory as something surely needs.

    Linux would grant more memory, and kill the process when it is used.

    Raises:
        ConfigError: there are fewer.
    """
    usable = usable_memory()
    if usable is not None and needed > usable:
        raise ConfigError(
            f"out of memory: {what} needs at least {needed / 1e9:.1f} GB, and "
            f"{usable / 1e9:.1f} GB are available; {advice}"
        )
