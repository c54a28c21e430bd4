"""Compiling the C files of this package into libraries that Python can call."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from charlm.files import cache_folder
from charlm.machine import cpu_features

SOURCES = Path(__file__).with_name("c")
TIMEOUT_S = 60  # far more than a compiler needs; one that hangs is stopped


class NoKernelError(Exception):
    """A kernel is not available; the message says why."""


def load_kernel(name: str, flags: tuple[str, ...], of_this_cpu: bool = False) -> ctypes.CDLL:
    """Compile `name`.c with `flags`, or find the library of an earlier call in the cache.

    Args:
        of_this_cpu: whether the flags give other code on another CPU, as -march=native does. Then
            CPUs with different features get different files in the cache.

    Returns:
        The loaded library.

    Raises:
        NoKernelError: there is no compiler, or it fails.
    """
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise NoKernelError("there is no C compiler (cc, gcc or clang)")
    source = SOURCES / f"{name}.c"
    command = [
        *compiler.split(),
        "-O3",
        "-fno-math-errno",
        "-D_GNU_SOURCE",
        "-shared",
        "-fPIC",
        "-fopenmp",
    ]
    command += flags
    digest = hashlib.sha256("\0".join(command).encode())
    if of_this_cpu:
        features = sorted(cpu_features()) or [platform.node()]
        digest.update(" ".join([platform.machine(), *features]).encode())
    for path in (source, *sorted(source.parent.glob("*.h"))):
        digest.update(path.read_bytes())
    library = cache_folder() / "kernels" / f"{name}-{digest.hexdigest()[:32]}.so"
    try:
        if not library.is_file():
            _compile([*command, str(source)], library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NoKernelError(f"{library}: {error.strerror or error}") from error


def _compile(command: list[str], library: Path) -> None:
    """Write a complete library or none; several processes may compile the same one at once."""
    library.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=library.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        result = subprocess.run(  # noqa: S603  (the user's own compiler)
            [*command, "-o", temporary],
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
        )
        if result.returncode:
            lines = result.stderr.strip().splitlines() or [f"status {result.returncode}"]
            raise NoKernelError(f"{command[0]} fails: {lines[0]:.200}")
        Path(temporary).replace(library)
    except FileNotFoundError as error:
        raise NoKernelError(f"there is no {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise NoKernelError(f"{command[0]} took more than {TIMEOUT_S} s") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
