"""Short descriptions of settings."""

from __future__ import annotations

from charlm.config.model import GPTConfig, MLPConfig, ModelConfig


def describe_model(model: ModelConfig) -> str:
    """`lstm, 2 layers of 128`."""
    layers = counted(model.n_layer, "layer")
    if isinstance(model, GPTConfig):
        return f"gpt, {layers} of {model.n_embd}, {model.n_head} heads, context {model.context}"
    context = f", context {model.context}" if isinstance(model, MLPConfig) else ""
    return f"{model.kind}, {layers} of {model.hidden_size}{context}"


def counted(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
