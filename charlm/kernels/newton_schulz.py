"""The orthogonalisation of Muon (Jordan et al. 2024) on a CPU with AMX."""

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
        self._coefficients = (ctypes.c_float * 3)(*COEFFICIENTS)
        self._room = torch.empty(0, dtype=torch.bfloat16)  # kept: fresh memory is slow to touch

    @staticmethod
    def fits(matrix: Tensor) -> bool:
        """Whether the kernel can do a matrix of this shape."""
        return matrix.ndim == 2 and not any(size % MULTIPLE for size in matrix.shape)

    def __call__(self, matrix: Tensor) -> Tensor:
        """The nearly orthogonal factor of a matrix (m, n), in bfloat16; of the same shape.

        Valid until the next call.
        """
        tall = matrix.shape[0] > matrix.shape[1]
        x = (matrix.T if tall else matrix).bfloat16().contiguous()
        x.div_(x.norm().clamp(min=1e-7))
        (m, n), threads = x.shape, torch.get_num_threads() if x.numel() >= ALONE else 1
        if self._room.numel() < (needed := 4 * m * n + 3 * m * m):
            self._room = torch.empty(needed, dtype=torch.bfloat16)
        room = self._room
        where = self._library.newton_schulz(
            threads,
            ctypes.c_size_t(m),
            ctypes.c_size_t(n),
            STEPS,
            self._coefficients,
            address(x),
            address(room),
        )
        if where < 0:
            raise RuntimeError("newton_schulz: the system gives no thread")
        result = room[: m * n].view(m, n) if where else x
        return result.T if tall else result
