"""From logits to a character: pure functions, applied in this order.

repetition penalty -> temperature -> top_k -> top_p -> min_p -> draw

Arrays are (..., V) in float64. The leading dimensions are texts; each is filtered on its own.
Weights are proportional to probabilities; their sum need not be 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charlm.config import SampleConfig
from charlm.data.vocab import Ids

Floats = NDArray[np.float64]
PENALTY_WINDOW = 64  # the repetition penalty is for the last 64 characters


def distribution(logits: Floats, config: SampleConfig, recent: Ids | None = None) -> Floats:
    """Apply the repetition penalty, the temperature and the filters of `config`.

    Args:
        logits: (..., V).
        recent: the ids (..., N) before the next character, for the repetition penalty; without
            them there is no penalty.

    Returns:
        The weights of the next character, (..., V).
    """
    if recent is not None and config.repetition_penalty != 1:
        logits = penalise(logits, recent[..., -PENALTY_WINDOW:], config.repetition_penalty)
    weights = softmax(logits, config.temperature)
    if config.top_k is not None:
        weights = keep_top_k(weights, config.top_k)
    if config.top_p is not None:
        weights = keep_top_p(weights, config.top_p)
    if config.min_p is not None:
        weights = keep_min_p(weights, config.min_p)
    return weights


def penalise(logits: Floats, recent: Ids, penalty: float) -> Floats:
    """Lower the logits of recent characters (Keskar et al. 2019, section 4.1).

    A positive logit is divided by the penalty. A negative one is multiplied by it, as Hugging Face
    Transformers does, because a division would make that character more likely. A character that
    occurs several times is penalised once.

    Args:
        logits: (..., V).
        recent: ids (..., N).
        penalty: above 0; above 1 it makes recent characters less likely.

    Returns:
        The new logits, (..., V).
    """
    index = recent.astype(np.intp)
    scores = np.take_along_axis(logits, index, axis=-1)
    lowered = np.where(scores > 0, scores / penalty, scores * penalty)
    penalised = logits.copy()
    np.put_along_axis(penalised, index, lowered, axis=-1)
    return penalised


def softmax(logits: Floats, temperature: float) -> Floats:
    """exp((logits - max) / temperature), so that the likeliest character has weight 1.

    Args:
        logits: (..., V).
        temperature: at 0, the likeliest character has weight 1 and all others have 0.

    Returns:
        Weights, (..., V).
    """
    if temperature == 0:
        return np.asarray(np.eye(logits.shape[-1])[logits.argmax(axis=-1)])
    top = np.maximum.reduce(logits, axis=-1, keepdims=True)
    weights = logits - top
    weights /= temperature
    np.exp(weights, out=weights)
    return weights


def keep_top_k(weights: Floats, k: int) -> Floats:
    """Keep the k likeliest characters and set the other weights to 0 (Fan et al. 2018).

    Among equal weights, lower ids are kept first.

    Args:
        weights: (..., V).
        k: at least 1.

    Returns:
        Weights, (..., V).
    """
    dropped = _by_likelihood(weights)[..., k:]
    kept = weights.copy()
    np.put_along_axis(kept, dropped, 0.0, axis=-1)
    return kept


def keep_top_p(weights: Floats, p: float) -> Floats:
    """Keep the smallest number of likeliest characters whose probabilities sum to at least p
    (Holtzman et al. 2020), and set the other weights to 0.

    Args:
        weights: (..., V).
        p: a probability in (0, 1].

    Returns:
        Weights, (..., V).
    """
    order = _by_likelihood(weights)
    ordered = np.take_along_axis(weights, order, axis=-1)
    sums = np.cumsum(ordered, axis=-1)
    before = np.concatenate([np.zeros_like(sums[..., :1]), sums[..., :-1]], axis=-1)
    threshold = p * sums[..., -1:]
    kept = np.empty_like(weights)
    np.put_along_axis(kept, order, np.where(before < threshold, ordered, 0.0), axis=-1)
    return kept


def keep_min_p(weights: Floats, p: float) -> Floats:
    """Keep the characters that are at least p times as likely as the likeliest one
    (Nguyen et al. 2024), and set the other weights to 0.

    Args:
        weights: (..., V).
        p: a ratio in (0, 1].

    Returns:
        Weights, (..., V).
    """
    return np.where(weights >= p * weights.max(axis=-1, keepdims=True), weights, 0.0)


def draw(weights: Floats, uniform: Floats) -> NDArray[np.intp]:
    """Draw a character by inverting the cumulative distribution.

    Args:
        weights: (..., V).
        uniform: numbers in [0, 1), (...,).

    Returns:
        For each text the first id whose cumulative weight exceeds `uniform` times the sum of all
        weights, (...,).
    """
    cumulative = np.add.accumulate(weights, axis=-1)
    exceeds = cumulative > uniform[..., None] * cumulative[..., -1:]
    return np.asarray(exceeds.argmax(axis=-1))


def _by_likelihood(weights: Floats) -> NDArray[np.intp]:
    """The ids from the likeliest on, (..., V); equal weights in the order of their ids."""
    return np.argsort(-weights, axis=-1, kind="stable")
