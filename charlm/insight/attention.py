"""What the attention heads of a GPT attend to.

Shapes: N characters of a text, T characters of a window, L layers, H heads, K width of a head.

A target is a kind of character to attend to, for example the previous character. The score of a
head is its total attention weight on the target's characters, averaged over the queries that have
one. A head is a discovery if its score is at least TIMES the best of three baselines, and at least
LEAST_GAIN above it:

    chance      attention spread evenly over all characters up to the query
    distance    the head's own mean attention at each distance, for any query. A head that only
                attends to near characters scores high here. Not for a target that is itself a
                distance.
    untrained   the best head of the same network with untrained weights
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.insight.features import line_starts, open_bracket
from charlm.insight.record import Array
from charlm.insight.trace import trace
from charlm.models import GPT

MAX_WINDOWS = 16  # of the text, for the scores
MAX_SHOWN, MAX_BYTES = 128, 3_000_000  # of the window on the page: characters, and size
TIMES, LEAST_GAIN = 2.0, 0.05


@dataclass(frozen=True)
class AttentionWindow:
    """Attention in the first T characters of the text.

    Attributes:
        attention: (L, H, T, T), the weights of each query (row), which sum to 1.
        queries, keys, values: (L, H, T, K).
    """

    attention: Array
    queries: Array
    keys: Array
    values: Array


@dataclass(frozen=True)
class HeadScore:
    """The score of one head for one target, and its three baselines.

    Attributes:
        distance: None for a target that is itself a distance.
        queries: the number of queries that have such a target.
    """

    target: str
    layer: int
    head: int
    score: float
    chance: float
    distance: float | None
    untrained: float
    queries: int
    discovery: bool


def attention_window(model: GPT, ids: Ids) -> AttentionWindow:
    """The attention in the first characters of ids (N,), as many as the page has room for."""
    piece = _tensor(model, ids[: _window_size(model)])
    traced, _ = trace(model, piece, with_attention=True)
    parts = (traced.attention, traced.queries, traced.keys, traced.values)
    return AttentionWindow(*(part[:, 0].cpu().numpy() for part in parts if part is not None))


def _window_size(model: GPT) -> int:
    """T. The page has 1 byte for each attention weight, and 2 for each number of q, k and v."""
    config = model.config
    L, H, K = config.n_layer, config.n_head, config.n_embd // config.n_head
    T = min(MAX_SHOWN, model.context)
    while T > 1 and L * H * T * (T + 6 * K) > MAX_BYTES:
        T //= 2
    return T


def score_heads(model: GPT, ids: Ids, text: str, untrained: Sequence[GPT] = ()) -> list[HeadScore]:
    """The score of every head for every target, over at most MAX_WINDOWS windows of a text.

    Args:
        ids: (N,), the text.
        text: the same text as characters.
        untrained: the same network with untrained weights.

    Returns:
        The scores, target by target, best head first. A target that the text does not have is left
        out.
    """
    scores, queries = _mean_weights(model, ids, text)  # (targets, 3, L, H)
    fresh = [_mean_weights(other, ids, text)[0][:, 0].max((1, 2)) for other in untrained]
    found = []
    for t, name in enumerate(TARGETS):
        if not queries[t]:
            continue
        best_fresh = max((float(each[t]) for each in fresh), default=0.0)
        heads = []
        for layer, head in np.ndindex(scores.shape[2:]):
            score, chance, near = (float(x) for x in scores[t, :, layer, head])
            distance = None if name in _DISTANCES else near
            baseline = max(chance, distance or 0.0, best_fresh)
            discovery = score >= max(TIMES * baseline, baseline + LEAST_GAIN)
            heads.append(
                HeadScore(
                    name, layer, head, score, chance, distance, best_fresh, queries[t], discovery
                )
            )
        found += sorted(heads, key=lambda each: -each.score)
    return found


def _mean_weights(model: GPT, ids: Ids, text: str) -> tuple[NDArray[np.float64], list[int]]:
    """The score, chance and distance of each head (targets, 3, L, H), and for each target the
    number of queries that have one."""
    L, H = model.config.n_layer, model.config.n_head
    sums, queries = np.zeros((len(TARGETS), 3, L, H)), [0] * len(TARGETS)
    starts = range(0, max(1, len(ids) - model.context + 1), model.context)
    for start in starts[:MAX_WINDOWS]:
        window = slice(start, start + model.context)
        traced, _ = trace(model, _tensor(model, ids[window]), with_attention=True)
        assert traced.attention is not None
        attention = traced.attention[:, 0].cpu().numpy()  # (L, H, T, T)
        near = _by_distance(attention)
        T = attention.shape[-1]
        even = np.tril(np.ones((T, T))) / np.arange(1, T + 1)[:, None]
        for t, target in enumerate(TARGETS.values()):
            mask = target(text[window])  # (T, T)
            queries[t] += int(mask.any(1).sum())
            sums[t, 0] += (attention * mask).sum((2, 3))
            sums[t, 1] += (even * mask).sum()
            sums[t, 2] += (near * mask).sum((2, 3))
    return sums / np.maximum(queries, 1)[:, None, None, None], queries


def _by_distance(attention: Array) -> Array:
    """Attention (L, H, T, T) in which each weight is the head's mean weight at that distance. The
    weights of each query are scaled to sum to 1."""
    T = attention.shape[-1]
    distance = np.arange(T)[:, None] - np.arange(T)  # (T, T), from query back to key
    means = np.stack([np.diagonal(attention, -d, 2, 3).mean(-1) for d in range(T)], -1)  # (L, H, T)
    near = np.where(distance >= 0, means[..., np.maximum(distance, 0)], 0.0)  # (L, H, T, T)
    return np.asarray(near / np.maximum(near.sum(-1, keepdims=True), 1e-12))


def _tensor(model: GPT, ids: Ids) -> torch.Tensor:
    """Ids (1, T) on the device of the model."""
    return torch.from_numpy(ids.astype(np.int64))[None].to(model.device)


# --- targets: (T, T), True where a key (column) is a target of a query (row) ------------------


def previous_character(text: str) -> Array:
    """The previous character."""
    return np.eye(len(text), k=-1, dtype=np.bool_)


def same_character(text: str) -> Array:
    """Earlier occurrences of the same character."""
    chars = np.array(list(text), dtype=object)
    return np.asarray(np.tril(chars[:, None] == chars[None, :], -1), np.bool_)


def line_start(text: str) -> Array:
    """The first character of the line, and the line end before it. The first two characters of a
    line are not queries, because these targets are too near to them."""
    starts, positions = line_starts(text), np.arange(len(text))
    mask = np.zeros((len(text),) * 2, np.bool_)
    for position in positions[positions - starts > 1]:
        mask[position, max(0, starts[position] - 1) : starts[position] + 1] = True
    return mask


def matching_bracket(text: str) -> Array:
    """The innermost open bracket. For a closing bracket, its partner."""
    opens = open_bracket(text)
    mask = np.zeros((len(text),) * 2, np.bool_)
    positions = np.flatnonzero(opens >= 0)
    mask[positions, opens[positions]] = True
    return mask


TARGETS: dict[str, Callable[[str], NDArray[Any]]] = {
    "previous character": previous_character,
    "same character earlier": same_character,
    "start of the line": line_start,
    "matching bracket": matching_bracket,
}
_DISTANCES = ("previous character",)
