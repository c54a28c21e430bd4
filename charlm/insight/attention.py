"""What the heads of a GPT look at.

Shapes: T characters of a window, L layers, H heads, K head width.

A head's score for a kind of target is the share of its attention that falls on such targets, over
the queries that have one. Three others are scored as well; a head is told of as looking
there where it gives at least TIMES the highest of these, and LEAST_GAIN more:

    chance      attention spread evenly over all it may look at
    distance    the head's own mean attention at each distance, wherever the target stands; a
                head that only looks near finds much there by luck (not for targets that are
                themselves a distance)
    untrained   the best head of the same network with fresh weights
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.insight.features import line_starts, open_bracket
from charlm.insight.record import Array
from charlm.insight.trace import blocks, n_layers, trace
from charlm.models import GPT

WINDOWS = 16  # of the text, for the scores
MOST_SHOWN, MOST_BYTES = 128, 3_000_000  # characters of the stretch that is shown; on the page
TIMES, LEAST_GAIN = 2.0, 0.05


@dataclass(frozen=True)
class Stretch:
    """Attention in one window of the text, from character `start` on.

    Attributes:
        attention: (L, H, T, T), each query's (row's) shares, which sum to 1.
        queries, keys, values: (L, H, T, K).
    """

    start: int
    attention: Array
    queries: Array
    keys: Array
    values: Array


@dataclass(frozen=True)
class HeadScore:
    """What one head gives to one kind of target, and what it would give by luck."""

    target: str
    layer: int
    head: int
    score: float
    chance: float
    distance: float | None
    untrained: float
    queries: int  # that have such a target
    discovery: bool


def look(model: GPT, ids: Ids, start: int = 0) -> Stretch:
    """The attention in a window of ids (N,), as long as is good to look at."""
    piece = _tensor(model, ids[start : start + _window(model)])
    told, _ = trace(model, piece, with_attention=True)
    parts = (told.attention, told.queries, told.keys, told.values)
    return Stretch(start, *(part[:, 0].cpu().numpy() for part in parts if part is not None))


def _window(model: GPT) -> int:
    """T: a byte for each share and two for each number of q, k and v are to fit."""
    L, H = n_layers(model), blocks(model)[0].attention.n_head
    K = model.embed.embedding_dim // H
    T = min(MOST_SHOWN, model.context)
    while T > 1 and L * H * T * (T + 6 * K) > MOST_BYTES:
        T //= 2
    return T


def score_heads(model: GPT, ids: Ids, text: str, untrained: Sequence[GPT] = ()) -> list[HeadScore]:
    """Every head's score for every kind of target, in windows of the text ids (N,), `text`; for
    each kind the best head first."""
    own, queries = _shares(model, ids, text)  # (targets, 3, L, H)
    fresh = [_shares(other, ids, text)[0][:, 0].max((1, 2)) for other in untrained]
    found = []
    for t, name in enumerate(TARGETS):
        if not queries[t]:
            continue
        highest = max((float(each[t]) for each in fresh), default=0.0)
        scores = []
        for layer, head in np.ndindex(own.shape[2:]):
            score, chance, near = (float(x) for x in own[t, :, layer, head])
            distance = None if name in _DISTANCES else near
            best = max(chance, distance or 0.0, highest)
            discovery = score >= max(TIMES * best, best + LEAST_GAIN)
            scores.append(
                HeadScore(
                    name, layer, head, score, chance, distance, highest, queries[t], discovery
                )
            )
        found += sorted(scores, key=lambda each: -each.score)
    return found


def _shares(model: GPT, ids: Ids, text: str) -> tuple[NDArray[np.float64], list[int]]:
    """The score, chance and distance of each target and head (targets, 3, L, H), and how many
    queries have a target of each kind."""
    L, H = n_layers(model), blocks(model)[0].attention.n_head
    sums, queries = np.zeros((len(TARGETS), 3, L, H)), [0] * len(TARGETS)
    for start, stop in _windows(len(ids), model.context):
        told, _ = trace(model, _tensor(model, ids[start:stop]), with_attention=True)
        assert told.attention is not None
        attention = told.attention[:, 0].cpu().numpy()  # (L, H, T, T)
        near = _by_distance(attention)
        even = np.tril(np.ones((stop - start,) * 2)) / np.arange(1, stop - start + 1)[:, None]
        for t, target in enumerate(TARGETS.values()):
            mask = target(text[start:stop])
            has = mask.any(1)
            queries[t] += int(has.sum())
            sums[t, 0] += (attention * mask).sum((2, 3))
            sums[t, 1] += (even * mask).sum()
            sums[t, 2] += (near * mask).sum((2, 3))
    return sums / np.maximum(queries, 1)[:, None, None, None], queries


def _windows(n: int, context: int) -> Iterator[tuple[int, int]]:
    starts = range(0, max(1, n - context + 1), context)
    for start in starts[:WINDOWS]:
        yield start, min(start + context, n)


def _by_distance(attention: Array) -> Array:
    """Attention (L, H, T, T) with each query's shares replaced by the head's mean at their
    distance, made to sum to 1 again."""
    T = attention.shape[-1]
    gap = np.arange(T)[:, None] - np.arange(T)  # (T, T), from key to query
    means = np.stack([np.diagonal(attention, -d, 2, 3).mean(-1) for d in range(T)], -1)
    near = np.where(gap >= 0, means[..., np.maximum(gap, 0)], 0.0)  # (L, H, T, T)
    return np.asarray(near / np.maximum(near.sum(-1, keepdims=True), 1e-12))


def _tensor(model: GPT, ids: Ids) -> torch.Tensor:
    return torch.from_numpy(ids.astype(np.int64))[None].to(next(model.parameters()).device)


# --- targets: (T, T), True where query t is to look at a key ----------------------------------


def previous_character(text: str) -> Array:
    """The character before."""
    return np.eye(len(text), k=-1, dtype=np.bool_)


def same_character(text: str) -> Array:
    """The same character, earlier."""
    chars = np.array(list(text), dtype=object)
    return np.asarray(np.tril(chars[:, None] == chars[None, :], -1), np.bool_)


def line_start(text: str) -> Array:
    """The first character of the line, and the line end before it; not of the line's first two,
    where these are near anyway."""
    starts, places = line_starts(text), np.arange(len(text))
    mask = np.zeros((len(text),) * 2, np.bool_)
    for place in places[places - starts > 1]:
        mask[place, max(0, starts[place] - 1) : starts[place] + 1] = True
    return mask


def matching_bracket(text: str) -> Array:
    """The innermost bracket that is open, also from the one that closes it."""
    opens = open_bracket(text)
    mask = np.zeros((len(text),) * 2, np.bool_)
    places = np.flatnonzero(opens >= 0)
    mask[places, opens[places]] = True
    return mask


TARGETS: dict[str, Callable[[str], NDArray[Any]]] = {
    "previous character": previous_character,
    "same character earlier": same_character,
    "start of the line": line_start,
    "matching bracket": matching_bracket,
}
_DISTANCES = ("previous character",)
