"""Products of matrices by charlm's own kernel: matmul.c."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from charlm.kernels.variants import Variant, address, load_variant


class _Product(ctypes.Structure):
    """`Product` of matmul.c: the same fields in the same order."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("M", "N", "K")),
        *((name, ctypes.c_void_p) for name in ("A", "B")),
        *((name, ctypes.c_size_t) for name in ("A_stride", "B_stride", "stride")),
        *((name, ctypes.c_int) for name in ("A_transposed", "B_transposed")),
        *((name, ctypes.c_void_p) for name in ("out", "packed")),
    ]


class Matmul:
    """The function of matmul.c.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self, variant: Variant) -> None:
        self._library = load_variant("matmul", variant)
        self._library.matmul_workspace.restype = ctypes.c_size_t
        self._workspace = torch.empty(0, dtype=torch.uint8)  # kept: first use of memory is slow

    def __call__(self, A: Tensor, B: Tensor, out: Tensor | None = None) -> Tensor:
        """The product A B (M, N) of float32 matrices A (M, K) and B (K, N), in float32.

        Args:
            A, B: neighbours in a row, or in a column, are neighbours in memory.
            out: filled with the product, rows contiguous; by default a new tensor.
        """
        (M, K), N, threads = A.shape, B.shape[1], torch.get_num_threads()
        out = torch.empty(M, N) if out is None else out
        product = _Product(M=M, N=N, K=K, stride=out.stride(0), out=out.data_ptr())
        for name, matrix in (("A", A), ("B", B)):
            transposed = matrix.stride(1) != 1
            source = matrix.t() if transposed else matrix
            assert source.stride(1) == 1
            setattr(product, name, source.data_ptr())
            setattr(product, f"{name}_stride", source.stride(0))
            setattr(product, f"{name}_transposed", transposed)
        needed = self._library.matmul_workspace(threads, ctypes.byref(product))
        if self._workspace.numel() < needed:
            self._workspace = torch.empty(needed, dtype=torch.uint8)
        product.packed = address(self._workspace)
        self._library.matmul(threads, ctypes.byref(product))
        return out
