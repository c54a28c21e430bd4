"""What happens inside a network while it reads: its own arithmetic once more, with nothing hidden.

PyTorch's recurrent layers show only what comes out of them, and its attention not what it looked
at. Here the same weights are used step by step. Nothing is hooked into the model, nothing is drawn
and dropout is off, so the model is as it was.

Shapes: B batch, T time (characters), V vocabulary, D width, L layers, H heads, K head width, W
neurons of an MLP.
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

Kept = dict[str, Tensor]
"""By a unit's kind, factors (L, B, D): 1 where a unit is as it is, 0 where it is held at zero."""


@dataclass(frozen=True)
class Trace:
    """What happened while B texts of T characters were read.

    Attributes:
        logits: (B, T, V), as the model itself gives them.
        units: by kind, (L, B, T, D): `h` hidden states and, of an LSTM, `c` cells; of a GPT, `mlp`
            the neurons of its MLPs (L, B, T, W) and `x` the residual stream after each block.
        gates: by name, (L, B, T, D), 0 to 1: `input`, `forget`, `output`, or `reset`, `update`.
        attention: (L, B, H, T, T), how much each query (row) looks at each key; of a GPT only.
        queries, keys, values: (L, B, H, T, K) likewise, after normalisation and rotation.
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
    kept: Kept | None = None,
    with_attention: bool = False,
) -> tuple[Trace, State | None]:
    """Read ids (B, T) as `model(ids, state)` does, and tell of every step.

    A GPT begins afresh and returns no state: read a window of it at once.

    Args:
        kept: factors for the units, in every step before anything reads them.
        with_attention: tell of a GPT's attention, too, which takes L H T^2 numbers a text.
    """
    if isinstance(model, Recurrent):
        with _one_thread():
            return _trace_recurrent(model, ids, state, kept or {})
    assert isinstance(model, GPT)
    return _trace_gpt(model, ids, kept or {}, with_attention), None


@contextmanager
def _one_thread() -> Iterator[None]:
    """A step of a few texts is too small to share: threads would only wait for each other."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def unit_kinds(model: CharModel) -> dict[str, int]:
    """The kinds of units a model has, and how many of each a layer has."""
    if isinstance(model, GPT):
        return {"mlp": blocks(model)[0].mlp.out.in_features, "x": model.embed.embedding_dim}
    assert isinstance(model, Recurrent)
    kinds = ("h", "c") if isinstance(model.rnn, nn.LSTM) else ("h",)
    return dict.fromkeys(kinds, model.rnn.hidden_size)


def n_layers(model: CharModel) -> int:
    """L."""
    if isinstance(model, GPT):
        return len(model.blocks)
    assert isinstance(model, Recurrent)
    return int(model.rnn.num_layers)


def blocks(model: GPT) -> list[Block]:
    """The layers of a GPT."""
    return [cast(Block, block) for block in model.blocks]


# --- RNN, GRU, LSTM --------------------------------------------------------------------------

# A step: from what the layer below contributes (B, G*D), what the recurrent matrix does
# (B, G*D) and the units before, to the units and the gates after. Equations: models/recurrent.py.
_Step = Callable[[Tensor, Tensor, dict[str, Tensor]], tuple[dict[str, Tensor], list[Tensor]]]


def _rnn(
    x: Tensor, u: Tensor, _before: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    return {"h": torch.tanh(x + u)}, []


def _gru(x: Tensor, u: Tensor, before: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    (xr, xz, xn), (ur, uz, un) = x.chunk(3, -1), u.chunk(3, -1)
    r, z = torch.sigmoid(xr + ur), torch.sigmoid(xz + uz)
    n = torch.tanh(xn + r * un)
    return {"h": (1 - z) * n + z * before["h"]}, [r, z]


def _lstm(
    x: Tensor, u: Tensor, before: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    i, f, g, o = (x + u).chunk(4, -1)
    i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
    c = f * before["c"] + i * torch.tanh(g)
    return {"c": c, "h": o * torch.tanh(c)}, [i, f, o]


_STEPS: dict[type[nn.Module], tuple[_Step, tuple[str, ...]]] = {
    nn.RNN: (_rnn, ()),
    nn.GRU: (_gru, ("reset", "update")),
    nn.LSTM: (_lstm, ("input", "forget", "output")),
}


def _trace_recurrent(
    model: Recurrent, ids: Tensor, state: State | None, kept: Kept
) -> tuple[Trace, State]:
    _, names = _STEPS[type(model.rnn)]
    kinds, layers = tuple(unit_kinds(model)), range(model.rnn.num_layers)
    if state is None:
        shape = (len(layers), len(ids), model.rnn.hidden_size)
        zeros = model.head.weight.new_zeros(shape)
        state = tuple(zeros for _ in kinds)
    y = model.look_up(ids.t())  # (T, B, D), or (T, B, V) one-hot
    units: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    gates: dict[str, list[Tensor]] = {name: [] for name in names}
    for layer in layers:
        before = {kind: part[layer] for kind, part in zip(kinds, state, strict=True)}
        factors = {kind: factor[layer] for kind, factor in kept.items()}
        steps, opened = _trace_layer(model.rnn, layer, y, before, factors)
        y = steps["h"]
        for kind in kinds:
            units[kind].append(steps[kind])
        for name, gate in zip(names, opened, strict=True):
            gates[name].append(gate)
    logits = model.head(y).transpose(0, 1)  # (B, T, V)
    whole = {kind: torch.stack(each) for kind, each in units.items()}  # (L, T, B, D)
    after = tuple(whole[kind][:, -1] for kind in kinds)
    return (
        Trace(
            logits,
            {kind: each.transpose(1, 2) for kind, each in whole.items()},
            {name: torch.stack(each).transpose(1, 2) for name, each in gates.items()},
        ),
        after,
    )


def _trace_layer(
    rnn: nn.RNNBase, layer: int, x: Tensor, units: dict[str, Tensor], factors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """One layer over the inputs x (T, B, .): its units, and its gates, each (T, B, D)."""
    step, names = _STEPS[type(rnn)]
    W, U, b_x, b_u = (
        getattr(rnn, f"{name}_l{layer}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    all_units: dict[str, list[Tensor]] = {kind: [] for kind in units}
    all_gates: list[list[Tensor]] = [[] for _ in names]
    for x_t in F.linear(x, W, b_x):  # (B, G*D)
        units, gates = step(x_t, F.linear(units["h"], U, b_u), units)
        if factors:
            units = _held(units, factors)
        for kind, value in units.items():
            all_units[kind].append(value)
        for each, gate in zip(all_gates, gates, strict=True):
            each.append(gate)
    return {k: torch.stack(v) for k, v in all_units.items()}, [torch.stack(g) for g in all_gates]


def _held(units: dict[str, Tensor], factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The units times their factors; what a cell held at zero lets out, tanh(0), is zero too."""
    units = {kind: value * factors.get(kind, 1.0) for kind, value in units.items()}
    return units | {"h": units["h"] * factors.get("c", 1.0)}


# --- GPT -------------------------------------------------------------------------------------


def _trace_gpt(model: GPT, ids: Tensor, kept: Kept, with_attention: bool) -> Trace:
    T = ids.shape[1]
    x, rotation = model.position(model.embed(ids), 0)  # (B, T, D)
    ahead = torch.ones(T, T, dtype=torch.bool, device=ids.device).triu(1)  # what comes later
    units: dict[str, list[Tensor]] = {"mlp": [], "x": []}
    seen: list[tuple[Tensor, ...]] = []  # attention, queries, keys, values of each layer
    for layer, block in enumerate(blocks(model)):
        q, k, v = block.attention.project(block.attention_norm(x), rotation)  # (B, H, T, K)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(ahead, -math.inf)
        attention = scores.softmax(-1)  # (B, H, T, T)
        x = x + block.attention.out((attention @ v).transpose(1, 2).flatten(2))  # (B, T, D)
        neurons = block.mlp.hidden(block.mlp_norm(x))  # (B, T, W)
        if "mlp" in kept:
            neurons = neurons * kept["mlp"][layer][:, None]
        x = x + block.mlp.out(neurons)
        if "x" in kept:
            x = x * kept["x"][layer][:, None]
        units["mlp"].append(neurons)
        units["x"].append(x)
        if with_attention:
            seen.append((attention, q, k, v))
    logits = model.head(model.norm(x))
    whole = {kind: torch.stack(each) for kind, each in units.items()}
    return Trace(logits, whole, {}, *(torch.stack(each) for each in zip(*seen, strict=True)))
