"""The instruction sets that the kernels are compiled for, and loading a kernel for one of them.

All kernels use the same C; `c/tiles.h` says what differs between instruction sets.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from charlm.kernels.build import SOURCES, NoKernelError, load_kernel
from charlm.kernels.openmp import use_threads
from charlm.machine import cpu_features

if TYPE_CHECKING:  # sampling does without torch
    import torch
    from torch import Tensor

_AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2")
_AVX512 = (
    *_AVX2,
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512cd"),
    "-mprefer-vector-width=512",
)
_BF16 = (*_AVX512, "-mavx512bf16")
_AVX2_FEATURES = frozenset({"avx2", "fma", "f16c", "bmi2"})
_AVX512_FEATURES = _AVX2_FEATURES | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"}


@dataclass(frozen=True)
class Variant:
    """The kernels for one instruction set.

    Attributes:
        name: as `charlm.machine.instruction_set` gives it; `portable` for the compiler's default.
        flags: for the compiler.
        features: that the CPU must have.
        half: whether products are of bfloat16 numbers; else of float32.
    """

    name: str
    flags: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    half: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers that are multiplied, `number` in C."""
        import torch

        return torch.bfloat16 if self.half else torch.float32


VARIANTS = (
    Variant(
        "amx",
        (*_BF16, "-mamx-tile", "-mamx-bf16"),
        _AVX512_FEATURES | {"avx512_bf16", "amx_tile", "amx_bf16"},
        half=True,
    ),
    Variant("avx512_bf16", _BF16, _AVX512_FEATURES | {"avx512_bf16"}, half=True),
    Variant("avx512", _AVX512, _AVX512_FEATURES),
    Variant("avx2", _AVX2, _AVX2_FEATURES),
    Variant("portable"),
)


_SAMPLING = ("gpt", "mlp", "recurrent")  # C files
_IS_X86 = platform.machine() in ("x86_64", "AMD64")


def usable_variants() -> list[Variant]:
    """The variants that this CPU can run, the widest first; `portable` is always the last."""
    features = cpu_features() if _IS_X86 else set()
    return [variant for variant in VARIANTS if features >= variant.features]


def for_sampling(variant: Variant) -> bool:
    """Whether the kernels for sampling use a variant. They need the precision of float32. AMX
    multiplies bfloat16 only, but is fast enough to treat each number as the sum of two."""
    return not variant.half or variant.name == "amx"


def packaged_kernels() -> list[tuple[str, Variant]]:
    """The C files and variants that a wheel for this architecture has."""
    names = sorted(path.stem for path in SOURCES.glob("*.c"))
    variants = [variant for variant in VARIANTS if _IS_X86 or not variant.features]
    return [
        (name, variant)
        for name in names
        for variant in variants
        if name not in _SAMPLING or for_sampling(variant)
    ]


def load_variant(name: str, variant: Variant) -> ctypes.CDLL:
    """Compile and load `name`.c for an instruction set.

    Raises:
        NoKernelError: the kernel does not compile, or the operating system does not allow AMX.
    """
    library = load_kernel(name, variant.flags)
    if not getattr(library, f"{name}_allowed")():
        raise NoKernelError("the operating system does not allow this program to use AMX")
    use_threads(library)
    return library


def address(tensor: Tensor) -> ctypes.c_void_p:
    """The address of the first number of a contiguous tensor."""
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
