"""What the kernels for CPUs with AMX share."""

from __future__ import annotations

import ctypes

from torch import Tensor

from charlm.kernels.build import NoKernelError, load_kernel
from charlm.machine import cpu_features

_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mamx-tile", "-mamx-bf16")
_NEEDS = {"avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_tile", "amx_bf16"}


def cpu_has_amx() -> bool:
    """Whether the CPU has what these kernels need."""
    return cpu_features() >= _NEEDS


def load_amx(name: str) -> ctypes.CDLL:
    """The library of `name`.c, allowed to run.

    Raises:
        NoKernelError: it is not to be had on this machine.
    """
    library = load_kernel(name, _FLAGS)
    if not getattr(library, f"{name}_allowed")():
        raise NoKernelError("this system does not let a program use AMX")
    return library


def address(tensor: Tensor) -> ctypes.c_void_p:
    """Where the numbers of a contiguous tensor lie."""
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
