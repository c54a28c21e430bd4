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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.config.shapes import unit_sizes
from charlm.models import GPT, MLP, CharModel, Recurrent, State
from charlm.models.gpt import Block

Masks = dict[str, Tensor]
"""By kind of unit, factors (L, B, D): 0 holds a unit at zero, 1 leaves it unchanged."""


@dataclass(frozen=True)
class Trace:
    """The inner values of a model that read B texts of T characters.

    Attributes:
        logits: (B, T, V), those of the model.
        units: by kind, (L, B, T, D). A recurrent network has `h`, the hidden state, and an LSTM
            also `c`, the cell state. An MLP has `h`, the hidden units. A GPT has `mlp`, the hidden
            layer of each MLP (L, B, T, F), and `x`, the residual stream after each block.
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
        state: of a recurrent network or an MLP. A GPT has none here: it reads one window at once.
        masks: units to hold at zero. They apply in every step, before anything reads the units.
        with_attention: also return a GPT's attention. It takes L*H*T^2 numbers for each text.

    Returns:
        The trace, and the state after the last character; None for a GPT.
    """
    if isinstance(model, Recurrent):
        with _one_thread():
            return _trace_recurrent(model, ids, state, masks or {})
    if isinstance(model, MLP):
        return _trace_mlp(model, ids, state, masks or {})
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


# --- RNN, GRU, LSTM --------------------------------------------------------------------------

# A step maps gi = x W_ih^T + b_ih, gh = h W_hh^T + b_hh, each (B, G*D), and the units before to the
# new units and the gates, (B, D) by name. The equations are those of models/recurrent.py.
Values = dict[str, Tensor]


def _rnn(gi: Tensor, gh: Tensor, _units: Values) -> Values:
    return {"h": torch.tanh(gi + gh)}


def _gru(gi: Tensor, gh: Tensor, units: Values) -> Values:
    (gi_r, gi_z, gi_n), (gh_r, gh_z, gh_n) = gi.chunk(3, -1), gh.chunk(3, -1)
    r, z = torch.sigmoid(gi_r + gh_r), torch.sigmoid(gi_z + gh_z)
    n = torch.tanh(gi_n + r * gh_n)
    return {"h": (1 - z) * n + z * units["h"], "reset": r, "update": z}


def _lstm(gi: Tensor, gh: Tensor, units: Values) -> Values:
    i, f, g, o = (gi + gh).chunk(4, -1)
    i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
    c = f * units["c"] + i * torch.tanh(g)
    return {"h": o * torch.tanh(c), "c": c, "input": i, "forget": f, "output": o}


_STEPS: dict[type[nn.Module], Callable[[Tensor, Tensor, Values], Values]] = {
    nn.RNN: _rnn,
    nn.GRU: _gru,
    nn.LSTM: _lstm,
}


def _trace_recurrent(
    model: Recurrent, ids: Tensor, state: State | None, masks: Masks
) -> tuple[Trace, State]:
    kinds, L = unit_sizes(model.config), model.rnn.num_layers
    if state is None:
        zeros = model.head.weight.new_zeros(L, len(ids), model.rnn.hidden_size)
        state = (zeros,) * len(kinds)
    x = model.look_up(ids.t())  # (T, B, D), or (T, B, V) one-hot
    layers = []
    for layer in range(L):
        initial = {kind: part[layer] for kind, part in zip(kinds, state, strict=True)}
        factors = {kind: mask[layer] for kind, mask in masks.items()}
        layers.append(_trace_layer(model.rnn, layer, x, initial, factors))
        x = layers[-1]["h"]
    values = {name: each.transpose(1, 2) for name, each in _stacked(layers).items()}  # (L, B, T, D)
    units = {kind: values.pop(kind) for kind in kinds}
    final = tuple(each[:, :, -1] for each in units.values())  # (L, B, D)
    return Trace(model.head(x).transpose(0, 1), units, values), final


def _trace_layer(rnn: nn.RNNBase, layer: int, x: Tensor, units: Values, factors: Values) -> Values:
    """Run one layer over the inputs x (T, B, D or V), from `units` (B, D) by kind.

    Returns:
        The units and gates by name, each (T, B, D).
    """
    step, steps = _STEPS[type(rnn)], []
    W_ih, W_hh, b_ih, b_hh = (
        getattr(rnn, f"{name}_l{layer}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    for gi in F.linear(x, W_ih, b_ih):  # (B, G*D)
        gh = F.linear(units["h"], W_hh, b_hh)  # (B, G*D)
        units = _masked(step(gi, gh, units), factors)
        steps.append(units)
    return _stacked(steps)


def _masked(values: Values, factors: Values) -> Values:
    """The values, units times their factors. A cell at zero has the hidden unit o * tanh(0) = 0."""
    if not factors:
        return values
    masked = {name: value * factors.get(name, 1.0) for name, value in values.items()}
    return masked | {"h": masked["h"] * factors.get("c", 1.0)}


def _stacked(each: list[Values]) -> Values:
    """The values of several steps or layers, along a new first dimension."""
    return {name: torch.stack([values[name] for values in each]) for name in each[0]}


# --- MLP -------------------------------------------------------------------------------------


def _trace_mlp(model: MLP, ids: Tensor, state: State | None, masks: Masks) -> tuple[Trace, State]:
    seen, after = model.look_back(ids, state)
    x = model.first_layer(seen)  # (B, T, D)
    layers: list[Tensor] = []
    for i in range(model.config.n_layer):
        h = model.activate(model.layers[i](layers[-1]) if i else x)  # (B, T, D)
        layers.append(h * masks["h"][i][:, None] if "h" in masks else h)
    return Trace(model.head(layers[-1]), {"h": torch.stack(layers)}), after


# --- GPT -------------------------------------------------------------------------------------


def _trace_gpt(model: GPT, ids: Tensor, masks: Masks, with_attention: bool) -> Trace:
    T = ids.shape[1]
    x, rotation = model.position(model.embed(ids), 0)  # (B, T, D)
    future = torch.ones(T, T, dtype=torch.bool, device=ids.device).triu(1)  # keys after the query
    layers: list[Values] = []
    attended: list[tuple[Tensor, ...]] = []  # attention, queries, keys, values of each layer
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
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
        layers.append({"mlp": hidden, "x": x})
        if with_attention:
            attended.append((attention, q, k, v))
    logits, units = model.head(model.norm(x)), _stacked(layers)
    return Trace(logits, units, {}, *(torch.stack(each) for each in zip(*attended, strict=True)))
