"""Helpers for the tests of the kernels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TypeVar

import pytest

from charlm.kernels.amx import cpu_has_amx

Kernel = TypeVar("Kernel")


def skip_without_compiler() -> None:
    """Skip the test if no C compiler is installed; one that fails is not a reason to skip."""
    names = os.environ.get("CC", "").split()[:1] or ["cc", "gcc", "clang"]
    if not any(map(shutil.which, names)):
        pytest.skip(f"no C compiler is installed ({', '.join(names)})")


def loaded(make: Callable[[], Kernel]) -> Kernel:
    """Return the kernel that `make` loads; skip the test only on a CPU without AMX or without a C
    compiler. A kernel that does not compile, or that the system does not run, fails the test."""
    if not cpu_has_amx():
        pytest.skip("this CPU has no AMX")
    skip_without_compiler()
    return make()
