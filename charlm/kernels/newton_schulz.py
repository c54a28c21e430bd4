"""A step of Muon (Jordan et al. 2024) on a CPU with AMX."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from charlm.kernels.amx import address, load_amx

COEFFICIENTS, STEPS = (3.4445, -4.775, 2.0315), 5  # as torch.optim.Muon has them
MULTIPLE = 32  # of which both sides of a matrix are
ALONE = 1 << 18  # numbers below which a second thread costs more than it brings


class NewtonSchulz:
    """The function of newton_schulz.c.

    Raises:
        NoKernelError: it is not to be had on this machine.
    """

    def __init__(self) -> None:
        self._library = load_amx("newton_schulz")
        self._room = torch.empty(0, dtype=torch.bfloat16)  # kept: fresh memory is slow to touch

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
        if self._room.numel() < (needed := 5 * m * n + 3 * m * m):
            self._room = torch.empty(needed, dtype=torch.bfloat16)
        squares = torch.empty(len(weights) // 16, dtype=torch.float64)
        refused = self._library.newton_schulz_step(
            torch.get_num_threads() if weights.numel() >= ALONE else 1,
            *map(ctypes.c_size_t, weights.shape),
            STEPS,
            (ctypes.c_float * 6)(*COEFFICIENTS, momentum, decay, rate),
            *map(address, (gradient.contiguous(), average, weights.detach(), self._room, squares)),
        )
        if refused:
            raise RuntimeError(f"newton_schulz: the system gives no thread ({refused})")
