"""From logits to one character: pure functions, applied in this order.

repetition penalty -> temperature -> top_k -> top_p -> min_p -> draw

All take arrays (..., V), in float64, a text or more at once, and treat each text by itself. What
comes out of a softmax, and of a filter, is in proportion to the probabilities; that they sum up to
1 matters to none, and is not seen to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.config import SampleConfig
from charlm.data.vocab import Ids

Floats = NDArray[np.float64]
PENALISED = 64  # so many characters back the repetition penalty looks


def distribution(logits: Floats, config: SampleConfig, recent: Ids | None = None) -> Floats:
    """The weights (..., V) that the next character is drawn by, all filters applied.

    Args:
        recent: ids (..., N) of the text just before, for the repetition penalty.
    """
    if recent is not None and config.repetition_penalty != 1:
        logits = penalised(logits, recent[..., -PENALISED:], config.repetition_penalty)
    weights = softmax(logits, config.temperature)
    if config.top_k is not None:
        weights = keep_top_k(weights, config.top_k)
    if config.top_p is not None:
        weights = keep_top_p(weights, config.top_p)
    if config.min_p is not None:
        weights = keep_min_p(weights, config.min_p)
    return weights


def penalised(logits: Floats, recent: Ids, penalty: float) -> Floats:
    """Logits with those of the characters in `recent` (..., N) made smaller by a factor.

    A positive one is divided by it (Keskar et al. 2019, section 4.1), a negative one multiplied,
    as is the custom: dividing would make that character likelier. Once is as bad as often.

    Raises:
        ValueError: penalty is not above 0.
    """
    if penalty <= 0:
        raise ValueError(f"repetition_penalty {penalty} is not above 0")
    index = recent.astype(np.intp)
    scores = np.take_along_axis(logits, index, axis=-1)
    smaller = np.where(scores > 0, scores / penalty, scores * penalty)
    changed = logits.copy()
    np.put_along_axis(changed, index, smaller, axis=-1)
    return changed


def softmax(logits: Floats, temperature: float) -> Floats:
    """exp(logits / temperature), in proportion: the likeliest has 1. At temperature 0 it has all.

    Raises:
        ValueError: temperature < 0.
    """
    if temperature < 0:
        raise ValueError(f"temperature {temperature} is below 0")
    if temperature == 0:
        return np.asarray(np.eye(logits.shape[-1])[logits.argmax(axis=-1)])
    top = np.maximum.reduce(logits, axis=-1, keepdims=True)
    weights = logits - top
    weights /= temperature
    np.exp(weights, out=weights)
    return weights


def keep_top_k(weights: Floats, k: int) -> Floats:
    """Only the k likeliest characters (Fan et al. 2018); of equal ones the first in the vocabulary.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"top_k {k} is below 1")
    dropped = _by_likelihood(weights)[..., k:]
    kept = weights.copy()
    np.put_along_axis(kept, dropped, 0.0, axis=-1)
    return kept


def keep_top_p(weights: Floats, p: float) -> Floats:
    """Only the likeliest characters, as few as make up p together (Holtzman et al. 2020).

    Raises:
        ValueError: p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p {p} is not above 0 and at most 1")
    order = _by_likelihood(weights)
    ordered = np.take_along_axis(weights, order, axis=-1)
    sums = np.cumsum(ordered, axis=-1)
    before = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    enough = p * sums[..., -1:]
    kept = np.empty_like(weights)  # `before` is the sum of the likelier ones
    np.put_along_axis(kept, order, np.where(before < enough, ordered, 0.0), axis=-1)
    return kept


def keep_min_p(weights: Floats, p: float) -> Floats:
    """Only characters at least p times as likely as the likeliest (Nguyen et al. 2024).

    Raises:
        ValueError: p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"min_p {p} is not above 0 and at most 1")
    return np.where(weights >= p * weights.max(axis=-1, keepdims=True), weights, 0.0)


def draw(weights: Floats, uniform: Floats) -> NDArray[np.intp]:
    """The characters (...,) where the cumulated weights (..., V) pass a share of their sum, which
    is `uniform` (...,), in [0, 1)."""
    cumulated = np.add.accumulate(weights, axis=-1)
    beyond = cumulated > uniform[..., None] * cumulated[..., -1:]
    return np.asarray(beyond.argmax(axis=-1))


def _by_likelihood(weights: Floats) -> NDArray[np.intp]:
    return np.argsort(-weights, axis=-1, kind="stable")
