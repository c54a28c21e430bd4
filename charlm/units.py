"""Nats and bits, and the sizes of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

WEIGHT_BYTES = {"int8": 1, "fp16": 2, "fp32": 4}  # by the format in which a model is exported


def bits(nats: float) -> float:
    """Convert nats to bits: nats / ln 2."""
    return nats / math.log(2)


@dataclass(frozen=True)
class Likelihood:
    """The negative log-likelihood (nats) of a text, summed over its characters."""

    nats: float
    chars: int

    @property
    def nats_per_char(self) -> float:
        return self.nats / self.chars if self.chars else 0.0

    @property
    def bits_per_char(self) -> float:
        return bits(self.nats_per_char)

    @property
    def perplexity(self) -> float:
        """exp(nats per character)."""
        try:
            return math.exp(self.nats_per_char)
        except OverflowError:
            return math.inf
