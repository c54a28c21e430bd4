"""The names and shapes of the tensors that a config needs, without building a model.

Sizes in a checkpoint may be anything, so they are compared with its tensors before anything is
allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from charlm.config.model import GPTConfig, MLPConfig, ModelConfig, RecurrentConfig

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]


def weight_shapes(config: ModelConfig, vocab_size: int) -> Named:
    """Yield the names and shapes of a model's weights, one by one: there may be billions."""
    if isinstance(config, GPTConfig):
        return _gpt(config, vocab_size)
    if isinstance(config, MLPConfig):
        return _mlp(config, vocab_size)
    return _recurrent(config, vocab_size)


def count_weights(config: ModelConfig, vocab_size: int) -> int:
    """The number of weights of a model."""
    return sum(math.prod(shape) for _, shape in weight_shapes(config, vocab_size))


def state_shapes(config: RecurrentConfig | MLPConfig, batch_size: int) -> Named:
    """Yield the names and shapes of the state that is carried from batch to batch, for B texts."""
    if isinstance(config, MLPConfig):
        yield "0", (1, batch_size, config.context - 1)
        return
    for part in range(2 if config.kind == "lstm" else 1):
        yield str(part), (config.n_layer, batch_size, config.hidden_size)


def unit_sizes(config: ModelConfig) -> dict[str, int]:
    """The kinds of units of a model, and the number of units of each kind in a layer."""
    if isinstance(config, GPTConfig):
        return {"mlp": config.mlp_width, "x": config.n_embd}
    return dict.fromkeys(("h", "c") if config.kind == "lstm" else ("h",), config.hidden_size)


def _recurrent(config: RecurrentConfig, V: int) -> Named:
    D, G = config.hidden_size, GATES[config.kind]
    if config.input == "embedding":
        yield "embed.weight", (V, D)
    yield "head.bias", (V,)
    if not config.tie_weights:
        yield "head.weight", (V, D)
    for layer in range(config.n_layer):
        width = V if layer == 0 and config.input == "one_hot" else D
        yield f"rnn.weight_ih_l{layer}", (G * D, width)
        yield f"rnn.weight_hh_l{layer}", (G * D, D)
        yield f"rnn.bias_ih_l{layer}", (G * D,)
        yield f"rnn.bias_hh_l{layer}", (G * D,)


def _mlp(config: MLPConfig, V: int) -> Named:
    D = config.hidden_size
    if config.input == "embedding":
        yield "embed.weight", (V, config.n_embd)
    for layer in range(config.n_layer):
        yield f"layers.{layer}.weight", (D, D if layer else config.input_width(V))
        yield f"layers.{layer}.bias", (D,)
    yield "head.weight", (V, D)
    yield "head.bias", (V,)


def _gpt(config: GPTConfig, V: int) -> Named:
    D, F = config.n_embd, config.mlp_width
    yield "embed.weight", (V, D)
    if config.position == "learned":
        yield "position.table", (config.context, D)
    if not config.tie_weights:
        yield "head.weight", (V, D)
    yield from _norm(config, "norm")
    first = ("gate_up", 2 * F) if config.mlp == "swiglu" else ("up", F)
    linears = {"attention.qkv": (3 * D, D), "attention.out": (D, D)}
    linears |= {f"mlp.{first[0]}": (first[1], D), "mlp.out": (D, F)}
    for layer in range(config.n_layer):
        for name, shape in linears.items():
            yield f"blocks.{layer}.{name}.weight", shape
            if config.bias:
                yield f"blocks.{layer}.{name}.bias", shape[:1]
        for part in ("attention", "mlp"):
            yield from _norm(config, f"blocks.{layer}.{part}_norm")


def _norm(config: GPTConfig, name: str) -> Named:
    yield f"{name}.weight", (config.n_embd,)
    if config.bias and config.norm == "layernorm":
        yield f"{name}.bias", (config.n_embd,)
