"""Arrays and matrices in the layout that product.h expects."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AMX_MIN_ROWS = 8  # from this number of rows on, AMX is used if there is any; as in product.h
TILE = 32  # AMX multiplies tiles of 32 rows and 32 columns
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
    """Uninitialised memory that starts at a cache line, as AMX needs it for speed; (nbytes,)."""
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % _ALIGNMENT
    return memory[start : start + nbytes]


def aligned_floats(*shape: int) -> NDArray[np.float32]:
    """An uninitialised float32 array that starts at a cache line."""
    return aligned_bytes(4 * math.prod(shape)).view(np.float32).reshape(shape)


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple that is not below n."""
    return -(-n // multiple) * multiple


def tile_workspace(n: int, width: int) -> Array:
    """Memory for an array (n, width) as tiles: 4 bytes for each element of all tiles it touches."""
    return aligned_bytes(4 * round_up(n, TILE) * round_up(width, TILE))


class CMatrix(ctypes.Structure):
    """`Matrix` of product.h."""

    _fields_ = [("O", size), ("I", size), ("W", pointer), ("b", pointer), ("tiles", pointer)]


class Matrix:
    """W (O, I) and b (O,), and the struct that C reads them from."""

    def __init__(self, W: Array, b: Array | None = None) -> None:
        self._arrays = [W, b]  # kept alive, because the struct has only their addresses
        self.c = CMatrix(*W.shape, address(W), address(b))

    def for_texts(self, B: int) -> CMatrix:
        """The struct for B texts.

        Below AMX_MIN_ROWS texts it has no tiles, even if there are any: the result must not depend
        on what was sampled before.
        """
        c = self.c
        return c if B >= AMX_MIN_ROWS else CMatrix(c.O, c.I, c.W, c.b)


def pack_tiles(matrices: Sequence[Matrix], library: ctypes.CDLL) -> Array:
    """Copy the matrices into tiles for AMX, as two bfloat16 arrays each. Without AMX, do nothing.

    Returns:
        The memory of all tiles; it must outlive the matrices. It is one allocation, so that the
        operating system can use large pages.
    """
    sizes = [library.product_tiles(ctypes.byref(matrix.c)) for matrix in matrices]
    tiles = aligned_bytes(sum(sizes))
    parts = np.split(tiles, np.cumsum(sizes)[:-1])
    for matrix, part in zip(matrices, parts, strict=True):
        if len(part):
            library.product_pack(ctypes.byref(matrix.c), pointer(address(part)))
            # set last, because another thread may be reading this matrix
            matrix.c.tiles = address(part)
    return tiles
