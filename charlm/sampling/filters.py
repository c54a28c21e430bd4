"""From logits to one character: pure functions of arrays of length V, applied in this order.

temperature -> top_k -> top_p -> draw
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def probabilities(logits: Floats, temperature: float) -> Floats:
    """softmax(logits / temperature). At temperature 0 the likeliest character has it all.

    Raises:
        ValueError: temperature < 0.
    """
    if temperature < 0:
        raise ValueError(f"temperature {temperature} is below 0")
    if temperature == 0:
        return np.asarray(np.eye(len(logits))[logits.argmax()])
    scaled = (logits - logits.max()) / temperature
    weights = np.exp(scaled)
    return np.asarray(weights / weights.sum())


def keep_top_k(probs: Floats, k: int) -> Floats:
    """Only the k likeliest characters (Fan et al. 2018); of equal ones the first in the vocabulary.

    Raises:
        ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"top_k {k} is below 1")
    dropped = _by_likelihood(probs)[k:]
    return _without(probs, dropped)


def keep_top_p(probs: Floats, p: float) -> Floats:
    """Only the likeliest characters, as few as make up p together (Holtzman et al. 2020).

    Raises:
        ValueError: p is not in (0, 1].
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p {p} is not above 0 and at most 1")
    order = _by_likelihood(probs)
    before = np.concatenate([[0.0], np.cumsum(probs[order])[:-1]])  # the sum of the likelier ones
    return _without(probs, order[before >= p])


def draw(probs: Floats, uniform: float) -> int:
    """The character where the cumulated probabilities pass `uniform`, a number in [0, 1)."""
    cumulated = np.cumsum(probs)
    return int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))


def _by_likelihood(probs: Floats) -> NDArray[np.intp]:
    return np.argsort(-probs, kind="stable")


def _without(probs: Floats, dropped: NDArray[np.intp]) -> Floats:
    kept = probs.copy()
    kept[dropped] = 0.0
    return np.asarray(kept / kept.sum())
