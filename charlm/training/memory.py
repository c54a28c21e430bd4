"""Refuses a run that cannot fit into the memory of the machine, before the system kills it."""

from __future__ import annotations

from charlm.config import AdamConfig, GPTConfig, SGDConfig, TrainConfig
from charlm.errors import ConfigError
from charlm.machine import usable_memory
from charlm.models import CharModel


def refuse_too_large(train: TrainConfig, model: CharModel) -> None:
    """Check the memory for training on the CPU.

    Raises:
        ConfigError: there is less than the run surely needs. It may need several times as much.
    """
    needed, usable = bytes_at_least(train, model), usable_memory()
    if usable is not None and needed > usable:
        raise ConfigError(
            f"out of memory: training needs at least {needed / 1e9:.1f} GB, and "
            f"{usable / 1e9:.1f} GB are available; use a smaller model, lower train.batch_size, or "
            "raise train.grad_accum, which keeps the batch size"
        )


def bytes_at_least(train: TrainConfig, model: CharModel) -> int:
    """The bytes of weights, gradients, the optimizer's state, and of the outputs of the layers for
    one part of a batch, if those are in bfloat16."""
    states = {AdamConfig: 2, SGDConfig: 0}.get(type(train.optimizer), 1)  # numbers per weight
    config = model.config
    width = config.n_embd if isinstance(config, GPTConfig) else config.hidden_size
    chars = train.batch_size // train.grad_accum * train.seq_len
    outputs = 2 * chars * (config.n_layer * width + model.vocab_size)
    return 4 * (2 + states) * model.count_parameters() + outputs
