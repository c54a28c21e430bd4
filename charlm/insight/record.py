"""Records every unit at every character of a text, piece by piece.

Shapes: N characters of the text, B texts side by side, T characters of a piece, V vocabulary,
L layers, D units of a kind in a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.config.shapes import unit_sizes
from charlm.data.vocab import Ids
from charlm.errors import BrokenModelError
from charlm.evaluation.windows import Window, windows
from charlm.insight.trace import Masks, Trace, trace
from charlm.models import CharModel, State

Array = NDArray[Any]
Starts = NDArray[np.int64] | None
"""The first position of each document of a list, and the end of the text; None for a text that is
not a list."""
CHARS_AT_ONCE = 512  # of a recurrent network's text: limits the memory of a trace
GUESSES = 5
MAX_NATS = 1e30  # of a character: sums of larger ones would not be finite


@dataclass(frozen=True)
class Activations:
    """The units, gates and predictions of a network at each of the N characters of a text.

    Units, gates and guesses at position t are those after character t was read.

    Attributes:
        ids: (N,), the text.
        units: by kind, (L, N, D) float16. The kinds are those of `Trace`.
        gates: by name, (L, N, D) float16, from 0 to 1. Empty for a network without gates.
        nats: (N,) float32, the surprisal of character t given those before it; NaN for the first.
        guesses: (N, 5), the ids of the most likely next characters, most likely first.
        probabilities: (N, 5) float32, their probabilities.
    """

    ids: Ids
    units: dict[str, Array]
    gates: dict[str, Array]
    nats: NDArray[np.float32]
    guesses: NDArray[np.int64]
    probabilities: NDArray[np.float32]


def windows_of(n: int, context: int | None, starts: Starts = None) -> Iterator[Window]:
    """The windows in which a text of n characters is read. Evaluation and sampling read it the same
    way.

    A recurrent network carries its state through the text. A GPT reads windows, and each window
    keeps half of the one before. The documents of a list are read separately; each is read from
    the line end before it.

    Args:
        context: of a GPT; None for a recurrent network.
    """
    edges = [0, *([] if starts is None else (starts[1:-1] - 1).tolist()), n]
    for a, b in pairwise(edges):
        if context is None:
            for start in range(a, b, CHARS_AT_ONCE):
                yield Window(start, min(start + CHARS_AT_ONCE, b), fresh=start == a)
        else:
            for window in windows(b - a, context):
                yield Window(a + window.start, a + window.stop, window.skip)


def stream(
    model: CharModel, text: Ids, starts: Starts = None, masks: Masks | None = None
) -> Iterator[tuple[Window, Trace]]:
    """Trace B texts (B, N) side by side, window by window.

    The memory is that of one window, for a text of any length.

    Args:
        starts: the documents of the text, as for `record`.
        masks: the units to hold at zero, as for `trace`.
    """
    state: State | None = None
    for window in windows_of(text.shape[1], model.context, starts):
        ids = torch.from_numpy(text[:, window.start : window.stop].astype(np.int64))
        traced, state = trace(model, ids.to(model.device), None if window.fresh else state, masks)
        yield window, traced


def record(model: CharModel, ids: Ids, starts: Starts = None) -> Activations:
    """Record what `model` does at each character of the text ids (N,).

    Apart from its result this needs the memory of one piece. It changes neither the model (its
    weights, mode and gradients) nor the random generators.

    Args:
        starts: the documents of a list, which are read separately.

    Raises:
        BrokenModelError: an output of the model is not finite, or its loss is above MAX_NATS.
    """
    N, L = len(ids), model.config.n_layer
    units = {
        k: np.empty((L, N, width), np.float16) for k, width in unit_sizes(model.config).items()
    }
    gates: dict[str, Array] = {}
    nats = np.full(N, np.nan, np.float32)
    guesses = np.zeros((N, min(GUESSES, model.vocab_size)), np.int64)
    probabilities = np.zeros(guesses.shape, np.float32)
    for window, traced in stream(model, ids[None], starts):
        here = slice(window.start + window.skip, window.stop)
        log_p = traced.logits[0, window.skip :].float().log_softmax(-1)  # (T, V)
        if not bool((log_p > -MAX_NATS).all()):  # false for NaN, too
            raise BrokenModelError
        for kind, values in units.items():
            values[:, here] = _half(traced.units[kind][:, 0, window.skip :])
        for name, gate in traced.gates.items():
            if name not in gates:
                gates[name] = np.empty((L, N, gate.shape[-1]), np.float16)
            gates[name][:, here] = _half(gate[:, 0, window.skip :])
        _score(log_p, ids, here.start, nats)
        best = log_p.topk(guesses.shape[1])
        guesses[here], probabilities[here] = best.indices.cpu(), best.values.exp().cpu()
    return Activations(ids, units, gates, nats, guesses, probabilities)


def record_units(model: CharModel, ids: Ids, rows: int = 16, warm_up: int = 64) -> dict[str, Array]:
    """The units of `record` alone, faster and approximate.

    A recurrent network reads the text in `rows` pieces side by side, each from `warm_up` characters
    before it on. This is enough for an untrained network, which forgets quickly. The documents of
    a list are not read separately.

    Returns:
        By kind, (L, N, D) float16.
    """
    if model.context is not None or len(ids) < rows * 2 * warm_up:
        return record(model, ids).units
    length = -(-len(ids) // rows)
    positions = np.arange(rows)[:, None] * length + np.arange(-warm_up, length)  # (rows, T)
    pieces = ids[np.clip(positions, 0, len(ids) - 1)]
    recorded: dict[str, list[Array]] = {}  # (L, rows, T, D) by kind
    for _, piece in stream(model, pieces):
        for kind, values in piece.units.items():
            recorded.setdefault(kind, []).append(_half(values))
    units = {k: np.concatenate(each, axis=2)[:, :, warm_up:] for k, each in recorded.items()}
    return {
        k: each.reshape(len(each), -1, each.shape[-1])[:, : len(ids)] for k, each in units.items()
    }


def losses(model: CharModel, ids: Ids, masks: Masks, starts: Starts = None) -> Array:
    """The surprisal of each character while units are held at zero, in nats (B, N).

    Each of the B rows of `masks` reads the same text ids (N,). The first character has NaN.
    """
    B = len(next(iter(masks.values()))[0])
    nats = np.full((B, len(ids)), np.nan, np.float32)
    text = np.broadcast_to(ids, (B, len(ids)))
    for window, traced in stream(model, text, starts, masks):
        for row, logits in zip(nats, traced.logits[:, window.skip :], strict=True):
            _score(logits.float().log_softmax(-1), ids, window.start + window.skip, row)
    return nats


def _score(log_p: torch.Tensor, ids: Ids, first: int, nats: NDArray[np.float32]) -> None:
    """Store the surprisal of the characters after position `first`, from log_p (T, V), in
    nats (N,)."""
    targets = ids[first + 1 : first + 1 + len(log_p)].astype(np.int64)
    columns = torch.from_numpy(targets).to(log_p.device)
    target_log_p = log_p[: len(targets)].gather(1, columns[:, None])[:, 0]
    nats[first + 1 : first + 1 + len(targets)] = -target_log_p.cpu().numpy()


def _half(values: torch.Tensor) -> Array:
    """As float16, to save memory. Three digits are enough to show and to rank."""
    limit = torch.finfo(torch.float16).max
    return values.clamp(-limit, limit).half().cpu().numpy()
