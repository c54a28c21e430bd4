"""The networks. Each is `model(ids, state) -> (logits, state)` and keeps no state of its own."""

from __future__ import annotations

import torch

from charlm.config import GPTConfig, RecurrentConfig
from charlm.models.base import CharModel, State
from charlm.models.gpt import GPT
from charlm.models.recurrent import Recurrent
from charlm.randomness import torch_seed

__all__ = ["GPT", "CharModel", "Recurrent", "State", "build_model"]


def build_model(config: RecurrentConfig | GPTConfig, vocab_size: int, seed: int) -> CharModel:
    """A freshly initialised model on the CPU; the same seed gives the same weights."""
    # PyTorch's layers initialise themselves from the CPU's global generator: lend them one
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(seed, "weights"))
        if isinstance(config, GPTConfig):
            return GPT(config, vocab_size)
        return Recurrent(config, vocab_size)
