"""A step of Muon (Jordan et al. 2024) on a CPU with AMX."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from charlm.kernels.amx import address, load_amx

COEFFICIENTS, STEPS = (3.4445, -4.775, 2.0315), 5  # as torch.optim.Muon has them
MULTIPLE = 32  # of which both sides of a matrix are
MOST_THREADS = 64
ALONE = 1 << 18  # numbers below which a second thread costs more than it brings


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
    def fits(matrix: Tensor) -> bool:
        """Whether the kernel can do a matrix of this shape."""
        return matrix.ndim == 2 and not any(size % MULTIPLE for size in matrix.shape)

    def step(
        self,
        weights: Tensor,
        gradient: Tensor,
        average: Tensor,
        momentum: float,
        decay: float,
        rate: float,
    ) -> None:
        """Move `average`, and `weights` to decay * weights - rate * X, X the nearly orthogonal
        factor of momentum's update; all (m, n) float32."""
        m, n = sorted(weights.shape)
        threads = min(torch.get_num_threads(), n // MULTIPLE, MOST_THREADS)
        threads = threads if weights.numel() >= ALONE else 1
        needed = self._library.newton_schulz_room(*map(ctypes.c_size_t, (threads, m, n)))
        if self._room.numel() < needed:
            self._room = torch.empty(needed, dtype=torch.uint8)
        squares = torch.empty(len(weights) // 16, dtype=torch.float64)
        refused = self._library.newton_schulz_step(
            threads,
            *map(ctypes.c_size_t, weights.shape),
            STEPS,
            (ctypes.c_float * 6)(*COEFFICIENTS, momentum, decay, rate),
            *map(address, (gradient.contiguous(), average, weights.detach(), self._room, squares)),
        )
        if refused:
            raise RuntimeError(f"newton_schulz: the system gives no thread ({refused})")
