"""The compiled C of a network."""

from __future__ import annotations

import ctypes
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from threading import Lock

from charlm.kernels.build import NoKernelError
from charlm.kernels.variants import Variant, for_sampling, load_variant, usable_variants
from charlm.sampling.native.matrix import MIN_ROWS, Array, Matrix, aligned_bytes, pack, size
from charlm.sampling.native.threads import ThreadChooser


def variants() -> list[Variant]:
    """The variants for this CPU, the fastest first."""
    return list(filter(for_sampling, usable_variants()))


def load(name: str) -> ctypes.CDLL:
    """Load `name`.c for the first variant that compiles and that the system allows.

    Raises:
        NoKernelError: of the first variant, if there is none.
    """
    errors = []
    for variant in variants():
        try:
            return load_variant(name, variant)
        except NoKernelError as error:
            errors.append(error)
    raise errors[0]


class Kernel:
    """The function `name`_read of `name`.c, shared by all networks with the same weights.

    Args:
        matrices: those that are multiplied.

    Attributes:
        threads: the choice of the number of threads, by B.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """

    def __init__(self, name: str, matrices: Sequence[Matrix]) -> None:
        self._library = load(name)
        self._library.matrix_bytes.restype = self._library.rows_bytes.restype = size
        self._read = getattr(self._library, f"{name}_read")
        self._matrices = matrices
        self._packed: Array | None = None
        self._process = os.getpid()
        self._lock = Lock()  # threads of the program may sample with the same weights
        self.threads: defaultdict[int, ThreadChooser] = defaultdict(ThreadChooser)

    def prepare(self, B: int) -> None:
        """Pack the matrices before reading B texts, if they are needed packed for this B."""
        with self._lock:
            if B >= MIN_ROWS and self._packed is None:
                self._packed = pack(self._matrices, self._library)

    def workspace(self, n: int, width: int) -> Array:
        """Memory for an array (n, width) in the layout of products with packed matrices."""
        return aligned_bytes(self._library.rows_bytes(size(n), size(width)))

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
