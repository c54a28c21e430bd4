"""Every unit at every character of a text, recorded piece by piece.

Shapes: N characters of the text, V vocabulary, L layers, D units of a kind in a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.errors import BrokenModelError
from charlm.evaluation.windows import windows
from charlm.insight.trace import Kept, Trace, n_layers, trace, unit_kinds
from charlm.models import CharModel, State

Array = NDArray[Any]
Starts = NDArray[np.int64] | None
"""Of a list of items, where each begins, and the end; None for a text."""
CHARS_AT_ONCE = 512  # bounds the memory for what is not kept
GUESSES = 5


@dataclass(frozen=True)
class Activations:
    """What a network did at each of the N characters of a text.

    What stands at place t is of the moment after character t was read.

    Attributes:
        ids: (N,), the text.
        units: by kind, (L, N, D) float16; the kinds are those of `Trace`.
        gates: by name, (L, N, D) float16, 0 to 1; none where the network has none.
        nats: (N,) float32, what character t cost given those before it; NaN for the first.
        guesses: (N, 5), the ids thought likeliest to come next, the best first.
        chances: (N, 5) float32, their probabilities.
    """

    ids: Ids
    units: dict[str, Array]
    gates: dict[str, Array]
    nats: NDArray[np.float32]
    guesses: NDArray[np.int64]
    chances: NDArray[np.float32]


@dataclass(frozen=True)
class Span:
    """A piece of text to read at once: from start to stop, of which the first `skip` characters
    are context that an earlier span has told of; afresh, or from the state before."""

    start: int
    stop: int
    skip: int
    fresh: bool


def spans(n: int, context: int | None, starts: Starts = None) -> Iterator[Span]:
    """How a text of n characters is read, as evaluation and sampling do it.

    A model without a context carries its state through the text; one with a context keeps half of
    the window before. Each item of a list, which begins at one of `starts`, is read afresh from
    the line end before it.
    """
    edges = [0, *([] if starts is None else (starts[1:-1] - 1).tolist()), n]
    for a, b in pairwise(edges):
        if context is None:
            for start in range(a, b, CHARS_AT_ONCE):
                yield Span(start, min(start + CHARS_AT_ONCE, b), 0, start == a)
        else:
            for window in windows(b - a, context):
                yield Span(a + window.start, a + window.stop, window.skip, fresh=True)


def stream(
    model: CharModel, text: Ids, pieces: Iterable[Span], kept: Kept | None = None
) -> Iterator[tuple[Span, Trace]]:
    """Trace texts (B, N) of any length side by side, in the memory that one piece takes.

    Args:
        pieces: as `spans` gives them for the model's context.
        kept: as `trace` has it.
    """
    device = next(model.parameters()).device
    state: State | None = None
    for span in pieces:
        piece = torch.from_numpy(text[:, span.start : span.stop].astype(np.int64)).to(device)
        told, state = trace(model, piece, None if span.fresh else state, kept)
        yield span, told


def record(model: CharModel, ids: Ids, starts: Starts = None) -> Activations:
    """What `model` does at each character of the text ids (N,).

    Reads the text in pieces, so besides what it returns it needs the memory for one piece. The
    model is as it was: its weights, its mode, its gradients, and the random generators.

    Args:
        starts: of a list, which is read item by item; see `spans`.

    Raises:
        BrokenModelError: an output of the model is not finite.
    """
    N, L = len(ids), n_layers(model)
    units = {k: np.empty((L, N, width), np.float16) for k, width in unit_kinds(model).items()}
    gates: dict[str, Array] = {}
    nats = np.full(N, np.nan, np.float32)
    guesses = np.zeros((N, min(GUESSES, model.vocab_size)), np.int64)
    chances = np.zeros(guesses.shape, np.float32)
    for span, told in stream(model, ids[None], spans(N, model.context, starts)):
        here = slice(span.start + span.skip, span.stop)
        log_p = told.logits[0, span.skip :].float().log_softmax(-1)  # (T, V)
        if not bool(log_p.isfinite().all()):
            raise BrokenModelError(
                "the model's output is not finite: its weights are broken; take another checkpoint"
            )
        for kind, store in units.items():
            store[:, here] = _half(told.units[kind][:, 0, span.skip :])
        for name, gate in told.gates.items():
            if name not in gates:
                gates[name] = np.empty((L, N, gate.shape[-1]), np.float16)
            gates[name][:, here] = _half(gate[:, 0, span.skip :])
        _score(log_p, ids, here.start, nats)
        best = log_p.topk(guesses.shape[1])
        guesses[here], chances[here] = best.indices.cpu(), best.values.exp().cpu()
    return Activations(ids, units, gates, nats, guesses, chances)


def record_units(model: CharModel, ids: Ids, rows: int = 16, warm_up: int = 64) -> dict[str, Array]:
    """The units alone, as `record` has them, sooner and nearly exact: a recurrent network reads
    `rows` pieces of the text side by side, each from `warm_up` characters before it on.

    For comparison with untrained networks, which have long forgotten what was before, and are
    read a list as if it were a text.
    """
    if model.context is not None or len(ids) < rows * 2 * warm_up:
        return record(model, ids).units
    length = -(-len(ids) // rows)
    places = np.arange(rows)[:, None] * length + np.arange(-warm_up, length)  # (rows, T)
    pieces = ids[np.clip(places, 0, len(ids) - 1)]
    told: dict[str, list[Array]] = {}
    for _, piece in stream(model, pieces, spans(pieces.shape[1], None)):
        for kind, values in piece.units.items():
            told.setdefault(kind, []).append(_half(values))
    units = {kind: np.concatenate(each, axis=2)[:, :, warm_up:] for kind, each in told.items()}
    return {
        k: each.reshape(len(each), -1, each.shape[-1])[:, : len(ids)] for k, each in units.items()
    }


def losses(model: CharModel, ids: Ids, kept: Kept, starts: Starts = None) -> Array:
    """What each character costs where units are held at zero, nats (B, N); NaN for the first.

    All B ways of `kept` read the text ids (N,) side by side.
    """
    B = len(next(iter(kept.values()))[0])
    nats = np.full((B, len(ids)), np.nan, np.float32)
    text = np.broadcast_to(ids, (B, len(ids)))
    for span, told in stream(model, text, spans(len(ids), model.context, starts), kept):
        for row, logits in zip(nats, told.logits[:, span.skip :], strict=True):
            _score(logits.float().log_softmax(-1), ids, span.start + span.skip, row)
    return nats


def _score(log_p: torch.Tensor, ids: Ids, first: int, nats: NDArray[np.float32]) -> None:
    """Take what the characters after `first` cost from log_p (T, V), into nats (N,)."""
    after = ids[first + 1 : first + 1 + len(log_p)].astype(np.int64)
    places = torch.from_numpy(after).to(log_p.device)
    own = log_p[: len(after)].gather(1, places[:, None])[:, 0]
    nats[first + 1 : first + 1 + len(after)] = -own.cpu().numpy()


def _half(values: torch.Tensor) -> Array:
    """As float16: three digits are enough to look at and to rank, and memory is short."""
    most = torch.finfo(torch.float16).max
    return values.clamp(-most, most).half().cpu().numpy()
