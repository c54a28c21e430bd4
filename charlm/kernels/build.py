"""From a C file in this folder to functions that Python can call."""

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
SECONDS = 60  # more than enough; a compiler that hangs is not waited for


class NoKernelError(Exception):
    """A kernel is not to be had; the message says why."""


def load_kernel(name: str, flags: tuple[str, ...], of_this_cpu: bool = False) -> ctypes.CDLL:
    """The library of `name`.c, compiled with `flags` unless that was done before.

    Args:
        of_this_cpu: the flags mean something else on another CPU.

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
    made_of = hashlib.sha256("\0".join(command).encode())
    if of_this_cpu:
        features = sorted(cpu_features()) or [platform.node()]
        made_of.update(" ".join([platform.machine(), *features]).encode())
    for path in (source, *sorted(source.parent.glob("*.h"))):
        made_of.update(path.read_bytes())
    library = cache_folder() / "kernels" / f"{name}-{made_of.hexdigest()[:32]}.so"
    try:
        if not library.is_file():
            _compile([*command, str(source)], library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NoKernelError(f"{library}: {error.strerror or error}") from error


def _compile(command: list[str], library: Path) -> None:
    """Make the library whole or not at all; several processes may be at it."""
    library.parent.mkdir(parents=True, exist_ok=True)
    descriptor, made = tempfile.mkstemp(dir=library.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        ended = subprocess.run(  # noqa: S603  (the compiler that the user has)
            [*command, "-o", made],
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
            raise NoKernelError(f"{command[0]} fails: {lines[0]:.200}")
        Path(made).replace(library)
    except FileNotFoundError as error:
        raise NoKernelError(f"there is no {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise NoKernelError(f"{command[0]} took more than {SECONDS} s") from error
    finally:
        Path(made).unlink(missing_ok=True)
