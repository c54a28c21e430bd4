"""The networks: `model(ids, state) -> (logits, state)`. A model itself keeps no state."""

from __future__ import annotations

import torch

from charlm.config import GPTConfig, RecurrentConfig
from charlm.models.base import CharModel, State
from charlm.models.gpt import GPT
from charlm.models.recurrent import Recurrent
from charlm.randomness import torch_seed

__all__ = ["GPT", "CharModel", "Recurrent", "State", "build_model"]


def build_model(config: RecurrentConfig | GPTConfig, vocab_size: int, seed: int) -> CharModel:
    """Build a model with random weights on the CPU; the same seed gives the same weights."""
    # PyTorch's layers initialise themselves from the global generator: seed it, then restore it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(seed, "weights"))
        if isinstance(config, GPTConfig):
            return GPT(config, vocab_size)
        return Recurrent(config, vocab_size)
