"""A step of Muon (Jordan et al. 2024) by charlm's own kernel: muon.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from charlm.kernels.variants import Variant, address, load_variant

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # a, b, c, as in torch.optim.Muon


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
    """`Matrix` of muon.h: the same fields in the same order."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("gradient", "average", "weights")),
        ("rate", ctypes.c_float),
    ]


class _Step(ctypes.Structure):
    """`Step` of muon.h: the same fields in the same order."""

    _fields_ = [
        ("matrices", ctypes.POINTER(_Matrix)),
        ("count", ctypes.c_size_t),
        *((name, ctypes.c_float) for name in ("a", "b", "c", "momentum", "decay")),
        ("workspace", ctypes.c_void_p),
    ]


class MuonKernel:
    """The function of muon.c.

    Attributes:
        precision: of the products; sums are in float32.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    precision: Literal["bf16", "fp32"]

    def __init__(self, variant: Variant) -> None:
        self.precision = "bf16" if variant.half else "fp32"
        self._library = load_variant("muon", variant)
        self._library.muon_workspace.restype = ctypes.c_size_t
        self._workspace = torch.empty(0, dtype=torch.uint8)  # kept: first use of memory is slow

    def steps(self, updates: Sequence[MuonUpdate], momentum: float, decay: float) -> None:
        """Take one step for every matrix, in place.

            average <- average + (1 - momentum) (gradient - average)
            weights <- decay weights - rate X

        X is the nearly orthogonal factor of gradient + momentum (average - gradient), as Nesterov's
        momentum has it. The number of threads does not change the result.
        """
        ordered = sorted(updates, key=lambda it: it.weights.numel(), reverse=True)
        gradients = [it.gradient.contiguous() for it in ordered]
        matrices = (_Matrix * len(ordered))()
        for matrix, it, gradient in zip(matrices, ordered, gradients, strict=True):
            matrix.rows, matrix.columns = it.weights.shape
            matrix.gradient, matrix.average = address(gradient), address(it.average)
            matrix.weights, matrix.rate = address(it.weights.detach()), it.rate
        step = _Step(matrices, len(ordered), *COEFFICIENTS, momentum, decay)
        threads = torch.get_num_threads()
        needed = self._library.muon_workspace(threads, ctypes.byref(step))
        if self._workspace.numel() < needed:
            self._workspace = torch.empty(needed, dtype=torch.uint8)
        step.workspace = address(self._workspace)
        self._library.muon(threads, ctypes.byref(step))
