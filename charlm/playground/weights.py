"""Weights for a page: as they are, or rounded to fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.checkpoint.read import Checkpoint
from charlm.config.shapes import count_weights
from charlm.errors import CharlmError
from charlm.units import WEIGHT_BYTES

MAX_BYTES = 100_000_000  # of a page: browsers open larger ones slowly or not at all

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]


def check_size(checkpoint: Checkpoint, weights: str) -> None:
    """Check that a model is small enough for a page.

    Raises:
        CharlmError: it is not.
    """
    meta = checkpoint.meta
    count = count_weights(meta.config.model, len(meta.vocab))
    size, smallest = (count * WEIGHT_BYTES[it] * 4 // 3 for it in (weights, "int8"))  # in base64
    if size <= MAX_BYTES:
        return
    what = (
        f"{checkpoint.path}: a page with {count:,} weights in {weights} has about "
        f"{size / 1e6:,.0f} MB, and the limit is {MAX_BYTES / 1e6:.0f} MB"
    )
    if smallest <= MAX_BYTES:
        raise CharlmError(f"{what}; use weights=int8, which has {smallest / 1e6:,.0f} MB")
    raise CharlmError(what)


def pack(weights: Mapping[str, Floats], how: str) -> Arrays:
    """The weights as the arrays of a page.

    Args:
        weights: by name.
        how: one of WEIGHT_BYTES. With int8, each row of a matrix is divided by its largest value
            / 127 and rounded. Vectors, which are few numbers, stay in float32.

    Returns:
        The arrays by name; for a matrix in int8 also `NAME.scales`, (rows,). float16 numbers are
        given by their bits.
    """
    arrays: Arrays = {}
    for name, weight in weights.items():
        if weight.ndim == 1 or how == "fp32":
            arrays[name] = weight.astype("<f4")
        elif how == "fp16":
            arrays[name] = np.clip(weight, -65504, 65504).astype("<f2").view("<u2")
        else:
            largest = np.abs(weight).max(axis=1, initial=0)
            scales = np.where(largest > 0, largest / np.float32(127), 1).astype("<f4")
            arrays[name] = np.round(weight / scales[:, None]).clip(-127, 127).astype(np.int8)
            arrays[f"{name}.scales"] = scales
    return arrays


def unpack(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """The weights that a page computes with, by name: the inverse of `pack`."""
    weights = {}
    for name, array in arrays.items():
        if array.dtype == np.int8:
            weights[name] = array * arrays[f"{name}.scales"][:, None]
        elif array.dtype == np.uint16:
            weights[name] = array.view("<f2").astype(np.float32)
        elif not name.endswith(".scales"):
            weights[name] = array
    return weights
