"""Compiling the C files of this package into libraries that Python can call.

A wheel has them compiled (see setup.py). Others are compiled when they are first used, and kept in
the cache. A library is code that runs as this user, so one in the cache is verified before it is
loaded. Its name ends with the SHA-256 of its content, only this user and root can change it or its
folder, and it is no link. Otherwise it is compiled again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from charlm.files import (
    REMEDY,
    ExposedError,
    build_folder,
    flush,
    open_private,
    private_folder,
    remove_abandoned,
)

SOURCES = Path(__file__).with_name("c")
PACKAGED = Path(__file__).with_name("lib")  # the libraries in a wheel
FLAGS = (
    *("-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-D_GNU_SOURCE"),
    *("-shared", "-fPIC"),
)
MAX_BYTES = 1 << 26  # of a library, which has some tens of thousands
TIMEOUT_S = 600  # one that hangs is stopped; on a slow or busy machine some take over a minute
_ANY_NAME = re.compile(".*", re.DOTALL)  # of a compiler's file in a folder to build in


class NoKernelError(Exception):
    """A kernel is not available; the message says why."""


def load_kernel(name: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    """Find `name`.c, compiled with `flags`, in the wheel or in the cache, or compile it.

    Args:
        name: the name of the C file.
        flags: options for the compiler.

    Returns:
        The loaded library.

    Raises:
        NoKernelError: there is no compiler, or it fails, or others can change the cache.
    """
    source = SOURCES / f"{name}.c"
    try:
        packaged = PACKAGED / packaged_name(name, flags)
        if packaged.exists():
            with suppress(OSError):  # for another system: this one's compiler is tried
                return ctypes.CDLL(str(packaged))
        command = _command(flags)
        stem = _stem(name, command)
    except OSError as error:
        raise NoKernelError(f"{error.filename or source}: {error.strerror or error}") from error
    try:
        folder = private_folder("kernels", create=True)
        remove_abandoned(folder, _ANY_NAME)
        library = _find(folder, stem) or _compile([*command, str(source)], folder, stem)
        # This opens the file again. It is the verified one: only this user and root can replace it.
        return ctypes.CDLL(str(library))
    except ExposedError as error:
        raise NoKernelError(f"{error.filename}: {error.strerror}; {REMEDY}") from error
    except OSError as error:
        reason = f"{error.filename or stem}: {error.strerror or error}"
        raise NoKernelError(f"{reason}; set CHARLM_CACHE to another folder") from error


def packaged_name(name: str, flags: tuple[str, ...]) -> str:
    """The name of a library in a wheel; it has a hash of the sources and the flags."""
    return f"{_stem(name, [*FLAGS, *flags])}.so"


def compile_packaged(name: str, flags: tuple[str, ...], folder: Path) -> None:
    """Compile a library of a wheel.

    Raises:
        NoKernelError: there is no compiler, or it fails.
    """
    to = folder / packaged_name(name, flags)
    _run([*_command(flags), str(SOURCES / f"{name}.c"), "-o", str(to)])


def _command(flags: tuple[str, ...]) -> list[str]:
    """The compiler, and its options for every kernel and for this one."""
    found = next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    compiler = os.environ.get("CC", "").split() or found.split()
    if not compiler:
        raise NoKernelError("there is no C compiler (cc, gcc or clang)")
    return [*compiler, *FLAGS, *flags]


def sources_digest() -> str:
    """A hash of all C files."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _stem(name: str, command: list[str]) -> str:
    """A name with a hash of all that decides what the compiler writes."""
    digest = hashlib.sha256("\0".join([platform.machine(), *command]).encode())
    for path in (SOURCES / f"{name}.c", *sorted(SOURCES.glob("*.h"))):
        digest.update(path.read_bytes())
    return f"{name}-{digest.hexdigest()[:32]}"


def _find(folder: Path, stem: str) -> Path | None:
    """The library with this name that is as it was compiled."""
    for path in sorted(folder.glob(f"{stem}-*.so")):
        with suppress(OSError), open_private(path) as file:
            is_small = os.fstat(file.fileno()).st_size <= MAX_BYTES
            if is_small and path == _library(folder, stem, file):
                return path
    return None


def _library(folder: Path, stem: str, file: Any) -> Path:
    """The path of a library with the content of an open file."""
    return folder / f"{stem}-{hashlib.file_digest(file, 'sha256').hexdigest()}.so"


def _compile(command: list[str], folder: Path, stem: str) -> Path:
    """Write a complete library or none; several processes may compile the same one at once."""
    with build_folder(folder, _ANY_NAME) as temporary:
        output = temporary / "library.so"
        _run([*command, "-o", str(output)], TMPDIR=str(temporary))  # its own files are there, too
        with suppress(OSError):  # not supported by all file systems; its mode is checked later
            output.chmod(0o600)  # the linker makes it executable
        if not (output.exists() and output.stat().st_size):
            raise NoKernelError(f"{command[0]} writes no library")
        with output.open("rb+") as file:
            library = _library(folder, stem, file)
            flush(file.fileno())
        return output.replace(library)


def _run(command: list[str], **environment: str) -> None:
    """Run the compiler, with further variables in its environment."""
    try:
        result = subprocess.run(  # noqa: S603  (the user's own compiler)
            command,
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            env=os.environ | environment,
            umask=0o077,  # nobody else opens the library before it is complete
        )
    except FileNotFoundError as error:
        raise NoKernelError(f"the compiler {command[0]} is not installed") from error
    except OSError as error:
        raise NoKernelError(f"{command[0]} does not start: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NoKernelError(f"{command[0]} took more than {TIMEOUT_S} s") from error
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"status {result.returncode}"]
        raise NoKernelError(f"{command[0]} fails: {lines[0]:.200}")
