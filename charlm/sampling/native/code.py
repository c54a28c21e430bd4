"""The C of a network, compiled and ready to run."""

from __future__ import annotations

import ctypes
import platform
import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock

from charlm.kernels.build import load_kernel
from charlm.machine import held_to
from charlm.sampling.native.matrix import AMX_MIN_ROWS, Array, Matrix, pack, size
from charlm.sampling.native.threads import Threads

_MARCH = {None: "native", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}  # by held_to()


def compiler_flags() -> tuple[str, ...]:
    """For the CPU at hand, or the older one that charlm is held to."""
    flags: tuple[str, ...] = (f"-march={_MARCH[held_to()]}", "-fno-trapping-math")
    if platform.machine() in ("x86_64", "AMD64"):
        flags += ("-mprefer-vector-width=512",)
    return flags


class Code:
    """`name`_read of `name`.c, for the CPU at hand; one for all networks of the same weights.

    Args:
        matrices: those that AMX may multiply by.

    Attributes:
        threads: how many, by the number of texts side by side.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """

    def __init__(self, name: str, matrices: Sequence[Matrix]) -> None:
        self._library = load_kernel(name, compiler_flags(), of_this_cpu=True)
        self._library.product_tiles.restype = size
        self._read = getattr(self._library, f"{name}_read")
        self._matrices = matrices
        self._tiles: Array | None = None
        self._lock = Lock()  # several threads may write with one model
        self.threads: dict[int, Threads] = defaultdict(Threads)

    def make_tiles(self, texts: int) -> None:
        """See to the tiles for so many texts side by side, where they take any."""
        with self._lock:
            if texts >= AMX_MIN_ROWS and self._matrices and self._tiles is None:
                self._tiles = pack(self._matrices, self._library)

    def read(self, network: ctypes.Structure, texts: int, steps: int) -> None:
        """Let C read; `steps` tells how many comparable ones that are, for the threads' choice."""
        threads, started = self.threads[texts], time.perf_counter()
        self._read(threads.now, ctypes.byref(network))
        if steps:
            threads.took(time.perf_counter() - started, steps)
