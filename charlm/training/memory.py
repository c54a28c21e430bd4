"""Refuses a run that cannot fit into the memory of the machine, before the system kills it."""

from __future__ import annotations

from charlm.config import AdamConfig, GPTConfig, MLPConfig, ModelConfig, SGDConfig, TrainConfig
from charlm.config.shapes import count_weights
from charlm.errors import SMALLER_BATCH, SMALLER_MODEL
from charlm.models import refuse_beyond_memory


def refuse_too_large(train: TrainConfig, model: ModelConfig, vocab_size: int | None = None) -> None:
    """Check the memory for training on the CPU.

    Args:
        vocab_size: None if it is not known yet; then only the memory for the weights counts.

    Raises:
        ConfigError: there is less than the run surely needs. It may need several times as much.
    """
    advice = SMALLER_MODEL if vocab_size is None else SMALLER_BATCH
    refuse_beyond_memory(bytes_at_least(train, model, vocab_size), "training", advice)


def bytes_at_least(train: TrainConfig, model: ModelConfig, vocab_size: int | None) -> int:
    """The bytes of the weights, their gradients, the state of the optimizer, and, with a
    `vocab_size`, of what the backward pass needs of one part of a batch, in bfloat16."""
    states = {AdamConfig: 2, SGDConfig: 0}.get(type(train.optimizer), 1)  # numbers per weight
    needed = 4 * (2 + states) * count_weights(model, vocab_size or 1)
    if vocab_size is not None:
        chars = train.batch_size // train.grad_accum * train.seq_len
        needed += 2 * chars * (_kept(model, vocab_size) + vocab_size)
    return needed


def _kept(model: ModelConfig, vocab_size: int) -> int:
    """The numbers that are kept of one character for the backward pass, at least, without logits;
    one in float32 counts as two."""
    if isinstance(model, GPTConfig):  # also by kernels/c/blocks.h
        slopes = model.mlp_width * (2 if model.mlp == "swiglu" else 1)
        stream = 2 * 2 * model.width  # before attention and MLP, in float32
        heads = 4 * model.width  # queries, keys, values, and what the attention found
        return model.n_layer * (stream + heads + model.mlp_width + slopes)
    inputs = 0
    if isinstance(model, MLPConfig) and model.input == "embedding":
        inputs = model.input_width(vocab_size)
    return inputs + model.n_layer * model.width
