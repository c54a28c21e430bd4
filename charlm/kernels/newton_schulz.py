"""A step of Muon (Jordan et al. 2024) on a CPU with AMX."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.kernels.amx import address, load_amx

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # as torch.optim.Muon has them
MULTIPLE = 32  # of which both sides of a matrix are
TOGETHER = 1 << 17  # numbers from which on all threads work at one matrix, not one each


@dataclass(frozen=True)
class Moved:
    """A matrix of weights, its gradient, the average of gradients, all (m, n); and its rate."""

    weights: Tensor
    gradient: Tensor
    average: Tensor
    rate: float


class _Matrix(ctypes.Structure):
    """`Matrix` of newton_schulz.c."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("gradient", "average", "weights", "squares")),
        ("rate", ctypes.c_float),
    ]


class NewtonSchulz:
    """The function of newton_schulz.c.

    Raises:
        NoKernelError: it is not to be had on this machine.
    """

    def __init__(self) -> None:
        self._library = load_amx("newton_schulz")
        self._library.newton_schulz_room.restype = ctypes.c_size_t
        self._room = torch.empty(0, dtype=torch.uint8)  # kept: fresh memory is slow to touch

    @staticmethod
    def supports(matrix: Tensor) -> bool:
        """Whether the kernel can do a matrix of this shape."""
        return matrix.ndim == 2 and not any(size % MULTIPLE for size in matrix.shape)

    def steps(self, matrices: Sequence[Moved], momentum: float, decay: float) -> None:
        """Move every average by momentum's rule, and the weights to decay * weights - rate * X, X
        the nearly orthogonal factor of what comes of it; all (m, n) float32."""
        ordered = sorted(matrices, key=lambda it: it.weights.numel(), reverse=True)
        threads = torch.get_num_threads()
        large = sum(it.weights.numel() >= TOGETHER for it in ordered)
        alone = max((self._room_for(1, it) for it in ordered[large:]), default=0)
        together = max((self._room_for(threads, it) for it in ordered[:large]), default=0)
        if self._room.numel() < (needed := max(together, threads * alone)):
            self._room = torch.empty(needed, dtype=torch.uint8)
        squares = [torch.empty(len(it.weights) // 16, dtype=torch.float64) for it in ordered]
        gradients = [it.gradient.contiguous() for it in ordered]
        array = (_Matrix * len(ordered))()
        for slot, it, gradient, space in zip(array, ordered, gradients, squares, strict=True):
            slot.rows, slot.columns = it.weights.shape
            slot.gradient, slot.average = address(gradient), address(it.average)
            slot.weights, slot.squares = address(it.weights.detach()), address(space)
            slot.rate = it.rate
        self._library.newton_schulz_steps(
            threads,
            array,
            ctypes.c_size_t(large),
            ctypes.c_size_t(len(ordered)),
            (ctypes.c_float * 5)(*COEFFICIENTS, momentum, decay),
            address(self._room),
            ctypes.c_size_t(alone),
        )

    def _room_for(self, threads: int, matrix: Moved) -> int:
        """Bytes, whole cache lines."""
        sides = map(ctypes.c_size_t, (threads, *sorted(matrix.weights.shape)))
        return -(-int(self._library.newton_schulz_room(*sides)) // 64) * 64
