"""Random number generators: one for each purpose in a run, made from the seed and the purpose."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """The generator for a purpose such as "text"; `indices` separate, for example, its steps."""
    return np.random.default_rng((seed, zlib.crc32(purpose.encode()), *indices))


def torch_seed(seed: int, purpose: str, *indices: int) -> int:
    """A seed for a generator of PyTorch; see `generator`."""
    return int(generator(seed, purpose, *indices).integers(2**63))
