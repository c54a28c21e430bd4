"""The array library of the networks: numpy, or torch on a device.

The networks use only operators and functions that have the same names in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SMALL_TABLE = 1_000_000  # elements

Array = Any  # a float32 array of numpy or tensor of torch
Weights = Mapping[str, Array]


@dataclass(frozen=True)
class Arrays:
    """An array library.

    Attributes:
        xp: its module, numpy or torch.
        make: converts a numpy array to an array of this library.
    """

    xp: Any
    make: Callable[[Any], Array]

    def zeros(self, *shape: int) -> Array:
        """A float32 array of zeros."""
        return self.make(np.zeros(shape, np.float32))


NUMPY = Arrays(np, lambda array: array)


def is_small_table(size: int, n_weights: int) -> bool:
    """Whether a table of products with `size` elements is made for a network of `n_weights`."""
    return size <= max(SMALL_TABLE, n_weights // 4)


def linear(x: Array, weights: Weights, name: str) -> Array:
    """x W^T + b, as torch.nn.Linear.

    Args:
        x: (N, I).
        weights: `name`.weight is W, (O, I); `name`.bias is b, (O,), and may be missing.

    Returns:
        (N, O).
    """
    y = x @ weights[f"{name}.weight"].T
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias
