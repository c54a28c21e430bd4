"""Arrays and matrices in the layout that linear.h expects."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_ROWS = 8  # from this number of rows on, products are with packed matrices; as in linear.h
_ALIGNMENT = 64  # bytes: a cache line
size, pointer = ctypes.c_size_t, ctypes.c_void_p
Array = NDArray[Any]


def address(array: Array | None) -> int | None:
    """The address of the elements of a contiguous array; None for no array."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def aligned_bytes(nbytes: int) -> Array:
    """Uninitialised memory that starts at a cache line, for fast products; (nbytes,)."""
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % _ALIGNMENT
    return memory[start : start + nbytes]


def aligned_floats(*shape: int) -> NDArray[np.float32]:
    """An uninitialised float32 array that starts at a cache line."""
    return aligned_bytes(4 * math.prod(shape)).view(np.float32).reshape(shape)


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple that is not below n."""
    return -(-n // multiple) * multiple


class CMatrix(ctypes.Structure):
    """`Matrix` of linear.h."""

    _fields_ = [
        *((name, size) for name in ("O", "I", "gates")),
        *((name, pointer) for name in ("W", "b", "packed")),
    ]


class Matrix:
    """W (O, I) and b (O,), and the struct that C reads them from. O consists of `gates` parts."""

    def __init__(self, W: Array, b: Array | None = None, gates: int = 1) -> None:
        self._arrays = [W, b]  # kept alive, because the struct has only their addresses
        self.c = CMatrix(*W.shape, gates, address(W), address(b))

    def for_texts(self, B: int) -> CMatrix:
        """The struct for B texts.

        Below MIN_ROWS texts the matrix is not packed there, even if it has been packed: the result
        must not depend on what was sampled before.
        """
        c = self.c
        return c if B >= MIN_ROWS else CMatrix(c.O, c.I, c.gates, c.W, c.b)


def pack(matrices: Sequence[Matrix], library: ctypes.CDLL) -> Array:
    """Copy the matrices into the layout of products of many rows.

    Returns:
        The memory of all of them; it must outlive the matrices. It is one allocation, so that the
        operating system can use large pages.
    """
    sizes = [library.matrix_bytes(ctypes.byref(matrix.c)) for matrix in matrices]
    packed = aligned_bytes(sum(sizes))
    parts = np.split(packed, np.cumsum(sizes)[:-1])
    for matrix, part in zip(matrices, parts, strict=True):
        library.pack_matrix(ctypes.byref(matrix.c), pointer(address(part)))
        # set last, because another thread may be reading this matrix
        matrix.c.packed = address(part)
    return packed
