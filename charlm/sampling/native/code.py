"""The compiled C of a network."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock

from charlm.kernels.build import load_kernel
from charlm.machine import isa_limit
from charlm.sampling.native.matrix import AMX_MIN_ROWS, Array, Matrix, pack_tiles, size
from charlm.sampling.native.threads import ThreadChooser

_MARCH = {None: "native", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}  # by isa_limit()


def compiler_flags() -> tuple[str, ...]:
    """Flags for this CPU, or for the older one that CHARLM_ISA names."""
    flags: tuple[str, ...] = (f"-march={_MARCH[isa_limit()]}", "-fno-trapping-math")
    if platform.machine() in ("x86_64", "AMD64"):
        flags += ("-mprefer-vector-width=512",)
    return flags


class Kernel:
    """The function `name`_read of `name`.c, shared by all networks with the same weights.

    Args:
        matrices: those that may be multiplied with AMX.

    Attributes:
        threads: the choice of the number of threads, by B.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """

    def __init__(self, name: str, matrices: Sequence[Matrix]) -> None:
        self._library = load_kernel(name, compiler_flags(), of_this_cpu=True)
        self._library.product_tiles.restype = size
        self._read = getattr(self._library, f"{name}_read")
        self._matrices = matrices
        self._tiles: Array | None = None
        self._process = os.getpid()
        self._lock = Lock()  # threads of the program may sample with the same weights
        self.threads: defaultdict[int, ThreadChooser] = defaultdict(ThreadChooser)

    def prepare(self, B: int) -> None:
        """Make the tiles of the matrices before reading B texts, if AMX is used for this B."""
        with self._lock:
            if B >= AMX_MIN_ROWS and self._matrices and self._tiles is None:
                self._tiles = pack_tiles(self._matrices, self._library)

    def read(self, network: ctypes.Structure, B: int, steps: int) -> None:
        """Call the C function.

        Args:
            network: the struct `Network` of the C file.
            steps: the number of steps of one character in this call, for the choice of the number
                of threads; 0 for a call whose time is not comparable.
        """
        if os.getpid() != self._process:  # OpenMP's threads do not survive a fork
            self._read(1, ctypes.byref(network))
            return
        chooser, started = self.threads[B], time.perf_counter()
        self._read(chooser.count, ctypes.byref(network))
        if steps:
            chooser.record(time.perf_counter() - started, steps)
