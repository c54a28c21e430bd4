"""The OpenMP library whose threads the kernels use."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

# of threads.h, in the order of `use_openmp`; both GNU's and LLVM's library have them
_FUNCTIONS = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")


def use_threads(library: ctypes.CDLL) -> None:
    """Let a kernel use more than one thread, if there is an OpenMP library."""
    if (openmp := _openmp()) is not None:
        functions = (ctypes.cast(getattr(openmp, name), ctypes.c_void_p) for name in _FUNCTIONS)
        library.use_openmp((ctypes.c_void_p * len(_FUNCTIONS))(*functions))


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library in PyTorch's package, so that PyTorch and the kernels share its threads.
    Without one there, GNU's of the system; None if that is missing, too."""
    for name in (*_bundled(), "libgomp.so.1"):
        with suppress(OSError):
            library = ctypes.CDLL(str(name))
            if all(hasattr(library, function) for function in _FUNCTIONS):
                return library
    return None


def _bundled() -> Iterator[Path]:
    """The OpenMP libraries in PyTorch's package, which is not imported."""
    spec = find_spec("torch")
    for folder in (spec and spec.submodule_search_locations) or []:
        for pattern in ("libgomp*.so*", "libomp*.dylib"):
            yield from sorted(Path(folder, "lib").glob(pattern))
