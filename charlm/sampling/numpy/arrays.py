"""What the equations are written in: arrays of numpy, or of torch on some device.

Both know the same operators, and the functions used here by the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # numpy's or torch's, of float32
Weights = Mapping[str, Array]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Arrays:
    """A library of arrays.

    Attributes:
        xp: its module, numpy or torch.
        make: an array of its own from one of numpy's.
    """

    xp: Any
    make: Callable[[Any], Array]

    def zeros(self, *shape: int) -> Array:
        return self.make(np.zeros(shape, np.float32))


NUMPY = Arrays(np, lambda array: array)


def linear(x: Array, weights: Weights, name: str) -> Array:
    """W x + b for each row of x (N, I): (N, O). The matrix is (O, I), the bias may be missing."""
    y = x @ weights[f"{name}.weight"].T
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias
