"""Nats and bits."""

from __future__ import annotations

import math


def bits(nats: float) -> float:
    """So many nats in bits: nats / ln 2."""
    return nats / math.log(2)
