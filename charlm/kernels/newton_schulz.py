"""A step of Muon (Jordan et al. 2024) in bfloat16 on a CPU with AMX."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.kernels.amx import address, load_amx

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # a, b, c, as in torch.optim.Muon
SIZE_MULTIPLE = 32  # both sides of a matrix must be multiples of this
SHARED_SIZE = 1 << 17  # with this many numbers or more, all threads share a matrix; else one each


@dataclass(frozen=True)
class MuonUpdate:
    """What a step of Muon reads and changes for one matrix; all tensors are (m, n) float32.

    Attributes:
        weights: changed in place.
        gradient: of the loss with respect to the weights.
        average: the average of the gradients, changed in place.
        rate: the learning rate for this matrix.
    """

    weights: Tensor
    gradient: Tensor
    average: Tensor
    rate: float


class _Matrix(ctypes.Structure):
    """`Matrix` of newton_schulz.c: the same fields in the same order."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("gradient", "average", "weights", "squares")),
        ("rate", ctypes.c_float),
    ]


class NewtonSchulz:
    """The function of newton_schulz.c.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self) -> None:
        self._library = load_amx("newton_schulz")
        self._library.newton_schulz_room.restype = ctypes.c_size_t
        # kept between calls: the first use of memory is slow
        self._workspace = torch.empty(0, dtype=torch.uint8)

    @staticmethod
    def supports(matrix: Tensor) -> bool:
        """Whether the kernel can update a matrix of this shape."""
        return matrix.ndim == 2 and not any(size % SIZE_MULTIPLE for size in matrix.shape)

    def steps(self, updates: Sequence[MuonUpdate], momentum: float, decay: float) -> None:
        """Take one step for every matrix, in place.

            average <- average + (1 - momentum) (gradient - average)
            weights <- decay weights - rate X

        X is the nearly orthogonal factor of gradient + momentum (average - gradient), as Nesterov's
        momentum has it.
        """
        ordered = sorted(updates, key=lambda it: it.weights.numel(), reverse=True)
        threads = torch.get_num_threads()
        n_shared = sum(it.weights.numel() >= SHARED_SIZE for it in ordered)
        alone = max((self._workspace_bytes(1, it) for it in ordered[n_shared:]), default=0)
        shared = max((self._workspace_bytes(threads, it) for it in ordered[:n_shared]), default=0)
        if self._workspace.numel() < (needed := max(shared, threads * alone)):
            self._workspace = torch.empty(needed, dtype=torch.uint8)
        squares = [torch.empty(len(it.weights) // 16, dtype=torch.float64) for it in ordered]
        gradients = [it.gradient.contiguous() for it in ordered]
        matrices = (_Matrix * len(ordered))()
        for matrix, it, gradient, sums in zip(matrices, ordered, gradients, squares, strict=True):
            matrix.rows, matrix.columns = it.weights.shape
            matrix.gradient, matrix.average = address(gradient), address(it.average)
            matrix.weights, matrix.squares = address(it.weights.detach()), address(sums)
            matrix.rate = it.rate
        self._library.newton_schulz_steps(
            threads,
            matrices,
            ctypes.c_size_t(n_shared),
            ctypes.c_size_t(len(ordered)),
            (ctypes.c_float * 5)(*COEFFICIENTS, momentum, decay),
            address(self._workspace),
            ctypes.c_size_t(alone),
        )

    def _workspace_bytes(self, threads: int, update: MuonUpdate) -> int:
        """The size of the workspace of a matrix, in whole cache lines of 64 bytes."""
        sizes = map(ctypes.c_size_t, (threads, *sorted(update.weights.shape)))
        return -(-int(self._library.newton_schulz_room(*sizes)) // 64) * 64
