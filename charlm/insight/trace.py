"""Runs a model with all of its inner values visible: units, gates and attention.

PyTorch's recurrent layers return only their outputs, and its attention returns no weights. This
module computes the same step by step, from the same weights. It adds no hooks, uses no random
numbers and no dropout, and does not change the model.

Shapes: B batch, T characters, V vocabulary, D width, L layers, H heads, K width of a head, F width
of an MLP, G gates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.models import GPT, CharModel, Recurrent, State
from charlm.models.gpt import Block

Masks = dict[str, Tensor]
"""By kind of unit, factors (L, B, D): 0 holds a unit at zero, 1 leaves it unchanged."""


@dataclass(frozen=True)
class Trace:
    """The inner values of a model that read B texts of T characters.

    Attributes:
        logits: (B, T, V), those of the model.
        units: by kind, (L, B, T, D). A recurrent network has `h`, the hidden state, and an LSTM
            also `c`, the cell state. A GPT has `mlp`, the hidden layer of each MLP (L, B, T, F),
            and `x`, the residual stream after each block.
        gates: by name, (L, B, T, D), from 0 to 1. An LSTM has `input`, `forget` and `output`, a
            GRU `reset` and `update`.
        attention: (L, B, H, T, T), the weight of each key (column) for each query (row). These
            four are None without `with_attention` or without a GPT.
        queries, keys, values: (L, B, H, T, K), queries and keys after normalization and rotation.
    """

    logits: Tensor
    units: dict[str, Tensor]
    gates: dict[str, Tensor] = field(default_factory=dict)
    attention: Tensor | None = None
    queries: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None


@torch.inference_mode()
def trace(
    model: CharModel,
    ids: Tensor,
    state: State | None = None,
    masks: Masks | None = None,
    with_attention: bool = False,
) -> tuple[Trace, State | None]:
    """Read ids (B, T) as `model(ids, state)` does, and return the inner values of every step.

    Args:
        state: of a recurrent network. A GPT has none here: it reads one window at once.
        masks: units to hold at zero. They apply in every step, before anything reads the units.
        with_attention: also return a GPT's attention. It takes L*H*T^2 numbers for each text.

    Returns:
        The trace, and the state after the last character; None for a GPT.
    """
    if isinstance(model, Recurrent):
        with _one_thread():
            return _trace_recurrent(model, ids, state, masks or {})
    assert isinstance(model, GPT)
    return _trace_gpt(model, ids, masks or {}, with_attention), None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: a step of a few texts is too small for more to be faster."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def unit_kinds(model: CharModel) -> dict[str, int]:
    """The kinds of units of a model, and the number of units of each kind in a layer."""
    if isinstance(model, GPT):
        return {"mlp": blocks(model)[0].mlp.out.in_features, "x": model.embed.embedding_dim}
    assert isinstance(model, Recurrent)
    kinds = ("h", "c") if isinstance(model.rnn, nn.LSTM) else ("h",)
    return dict.fromkeys(kinds, model.rnn.hidden_size)


def n_layers(model: CharModel) -> int:
    """The number of layers, L."""
    if isinstance(model, GPT):
        return len(model.blocks)
    assert isinstance(model, Recurrent)
    return int(model.rnn.num_layers)


def blocks(model: GPT) -> list[Block]:
    """The L blocks of a GPT."""
    return [cast(Block, block) for block in model.blocks]


# --- RNN, GRU, LSTM --------------------------------------------------------------------------

# A step maps the input part x @ W_ih.T + b_ih (B, G*D), the hidden part h @ W_hh.T + b_hh (B, G*D)
# and the units before, (B, D) by kind, to the new units and the gates. Equations:
# models/recurrent.py.
_Step = Callable[[Tensor, Tensor, dict[str, Tensor]], tuple[dict[str, Tensor], list[Tensor]]]


def _rnn(x: Tensor, h: Tensor, _units: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    return {"h": torch.tanh(x + h)}, []


def _gru(x: Tensor, h: Tensor, units: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), h.chunk(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return {"h": (1 - z) * n + z * units["h"]}, [r, z]


def _lstm(x: Tensor, h: Tensor, units: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    i, f, g, o = (x + h).chunk(4, -1)
    i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
    c = f * units["c"] + i * torch.tanh(g)
    return {"c": c, "h": o * torch.tanh(c)}, [i, f, o]


_STEPS: dict[type[nn.Module], tuple[_Step, tuple[str, ...]]] = {
    nn.RNN: (_rnn, ()),
    nn.GRU: (_gru, ("reset", "update")),
    nn.LSTM: (_lstm, ("input", "forget", "output")),
}


def _trace_recurrent(
    model: Recurrent, ids: Tensor, state: State | None, masks: Masks
) -> tuple[Trace, State]:
    _, names = _STEPS[type(model.rnn)]
    kinds, layers = tuple(unit_kinds(model)), range(model.rnn.num_layers)
    if state is None:
        shape = (len(layers), len(ids), model.rnn.hidden_size)
        zeros = model.head.weight.new_zeros(shape)
        state = tuple(zeros for _ in kinds)
    x = model.look_up(ids.t())  # (T, B, D), or (T, B, V) one-hot
    units: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    gates: dict[str, list[Tensor]] = {name: [] for name in names}
    for layer in layers:
        initial = {kind: part[layer] for kind, part in zip(kinds, state, strict=True)}
        factors = {kind: mask[layer] for kind, mask in masks.items()}
        layer_units, layer_gates = _trace_layer(model.rnn, layer, x, initial, factors)
        x = layer_units["h"]
        for kind in kinds:
            units[kind].append(layer_units[kind])
        for name, gate in zip(names, layer_gates, strict=True):
            gates[name].append(gate)
    logits = model.head(x).transpose(0, 1)  # (B, T, V)
    stacked = {kind: torch.stack(each) for kind, each in units.items()}  # (L, T, B, D)
    final = tuple(stacked[kind][:, -1] for kind in kinds)  # (L, B, D)
    return (
        Trace(
            logits,
            {kind: each.transpose(1, 2) for kind, each in stacked.items()},
            {name: torch.stack(each).transpose(1, 2) for name, each in gates.items()},
        ),
        final,
    )


def _trace_layer(
    rnn: nn.RNNBase, layer: int, x: Tensor, units: dict[str, Tensor], factors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Run one layer over the inputs x (T, B, D or V), from `units` (B, D) by kind.

    Returns:
        The units by kind, and the gates, each (T, B, D).
    """
    step, names = _STEPS[type(rnn)]
    W_ih, W_hh, b_ih, b_hh = (
        getattr(rnn, f"{name}_l{layer}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    all_units: dict[str, list[Tensor]] = {kind: [] for kind in units}
    all_gates: list[list[Tensor]] = [[] for _ in names]
    for x_t in F.linear(x, W_ih, b_ih):  # (B, G*D)
        units, gates = step(x_t, F.linear(units["h"], W_hh, b_hh), units)
        if factors:
            units = _masked(units, factors)
        for kind, value in units.items():
            all_units[kind].append(value)
        for each, gate in zip(all_gates, gates, strict=True):
            each.append(gate)
    return {k: torch.stack(v) for k, v in all_units.items()}, [torch.stack(g) for g in all_gates]


def _masked(units: dict[str, Tensor], factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The units times their factors. A cell at zero has the hidden unit o * tanh(0) = 0."""
    units = {kind: value * factors.get(kind, 1.0) for kind, value in units.items()}
    return units | {"h": units["h"] * factors.get("c", 1.0)}


# --- GPT -------------------------------------------------------------------------------------


def _trace_gpt(model: GPT, ids: Tensor, masks: Masks, with_attention: bool) -> Trace:
    T = ids.shape[1]
    x, rotation = model.position(model.embed(ids), 0)  # (B, T, D)
    future = torch.ones(T, T, dtype=torch.bool, device=ids.device).triu(1)  # keys after the query
    units: dict[str, list[Tensor]] = {"mlp": [], "x": []}
    attended: list[tuple[Tensor, ...]] = []  # attention, queries, keys, values of each layer
    for layer, block in enumerate(blocks(model)):
        q, k, v = block.attention.project(block.attention_norm(x), rotation)  # (B, H, T, K)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(future, -math.inf)
        attention = scores.softmax(-1)  # (B, H, T, T)
        x = x + block.attention.out((attention @ v).transpose(1, 2).flatten(2))  # (B, T, D)
        hidden = block.mlp.hidden(block.mlp_norm(x))  # (B, T, F)
        if "mlp" in masks:
            hidden = hidden * masks["mlp"][layer][:, None]
        x = x + block.mlp.out(hidden)
        if "x" in masks:
            x = x * masks["x"][layer][:, None]
        units["mlp"].append(hidden)
        units["x"].append(x)
        if with_attention:
            attended.append((attention, q, k, v))
    logits = model.head(model.norm(x))
    stacked = {kind: torch.stack(each) for kind, each in units.items()}
    return Trace(logits, stacked, {}, *(torch.stack(each) for each in zip(*attended, strict=True)))
