"""Every random stream of a run has a generator of its own, made from the seed and a purpose."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *more: int) -> np.random.Generator:
    """The generator for a purpose, such as "text"; `more` tells apart, for instance, its steps."""
    return np.random.default_rng((seed, zlib.crc32(purpose.encode()), *more))


def torch_seed(seed: int, purpose: str) -> int:
    """A seed for one of PyTorch's generators."""
    return int(generator(seed, purpose).integers(2**63))
