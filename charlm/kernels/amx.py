"""Loading the kernels for CPUs with AMX, and passing tensors to them."""

from __future__ import annotations

import ctypes

from torch import Tensor

from charlm.kernels.build import NoKernelError, load_kernel
from charlm.machine import cpu_features

_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mamx-tile", "-mamx-bf16")
_REQUIRED = {"avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_tile", "amx_bf16"}


def cpu_has_amx() -> bool:
    """Whether the CPU has every instruction set that these kernels use."""
    return cpu_features() >= _REQUIRED


def load_amx(name: str) -> ctypes.CDLL:
    """Compile and load `name`.c, and ask the operating system for permission to use AMX.

    Raises:
        NoKernelError: the kernel does not compile, or the operating system does not allow AMX.
    """
    library = load_kernel(name, _FLAGS)
    if not getattr(library, f"{name}_allowed")():
        raise NoKernelError("the operating system does not allow this program to use AMX")
    return library


def address(tensor: Tensor) -> ctypes.c_void_p:
    """The address of the first number of a contiguous tensor."""
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
