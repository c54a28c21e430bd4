"""Arrays as product.h has them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

AMX_MIN_ROWS = 8  # `AMX_MIN_ROWS` of product.h: from so many rows on, a CPU's matrix unit is used
BLOCK = 32  # its matrices are made up of blocks of so many rows and columns
_ALIGNED = 64  # bytes
size, pointer = ctypes.c_size_t, ctypes.c_void_p
Array = NDArray[Any]


def address(array: Array | None) -> int | None:
    """Where the numbers of a contiguous array lie."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


def room(nbytes: int) -> Array:
    """Memory for so many bytes, where AMX likes it."""
    memory = np.empty(nbytes + _ALIGNED, np.uint8)
    start = -memory.__array_interface__["data"][0] % _ALIGNED
    return memory[start : start + nbytes]


def floats(*shape: int) -> NDArray[np.float32]:
    """Numbers not set yet, of which a row of 16 is one line of the cache."""
    return room(4 * math.prod(shape)).view(np.float32).reshape(shape)


def round_up(n: int, multiple: int) -> int:
    """The next multiple from n on."""
    return -(-n // multiple) * multiple


def rows_room(n: int, width: int) -> Array:
    """Room for (n, width) numbers as tiles: four bytes each, in whole blocks."""
    return room(4 * round_up(n, BLOCK) * round_up(width, BLOCK))


class CMatrix(ctypes.Structure):
    """`Matrix` of product.h."""

    _fields_ = [("O", size), ("I", size), ("W", pointer), ("b", pointer), ("tiles", pointer)]


class Matrix:
    """W (O, I) and b (O,), with what C knows of them."""

    def __init__(self, W: Array, b: Array | None = None) -> None:
        self._kept = [W, b]  # C has only their places
        self.c = CMatrix(*W.shape, address(W), address(b))

    def for_texts(self, count: int) -> CMatrix:
        """The matrix for B = `count` texts: with tiles from AMX_MIN_ROWS texts on. Fewer texts
        never use tiles, even where they exist: results must not depend on earlier calls."""
        c = self.c
        return c if count >= AMX_MIN_ROWS else CMatrix(c.O, c.I, c.W, c.b)


def pack(matrices: Sequence[Matrix], library: ctypes.CDLL) -> Array:
    """Make the tiles for AMX_MIN_ROWS rows and more, where there is AMX: as much memory again.

    Returns:
        Where they lie; in one piece, for which the system takes larger pages.
    """
    sizes = [library.product_tiles(ctypes.byref(matrix.c)) for matrix in matrices]
    tiles = room(sum(sizes))
    parts = np.split(tiles, np.cumsum(sizes)[:-1])
    for matrix, part in zip(matrices, parts, strict=True):
        if len(part):
            library.product_pack(ctypes.byref(matrix.c), pointer(address(part)))
            matrix.c.tiles = address(part)  # not before: another thread may be using the matrix
    return tiles
