"""Helpers for the tests of the kernels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
import torch

from charlm.kernels.variants import Variant, usable_variants

Kernel = TypeVar("Kernel")
VARIANTS = usable_variants()


def skip_without_compiler() -> None:
    """Skip the test if no C compiler is installed; one that fails is not a reason to skip."""
    names = os.environ.get("CC", "").split()[:1] or ["cc", "gcc", "clang"]
    if not any(map(shutil.which, names)):
        pytest.skip(f"no C compiler is installed ({', '.join(names)})")


@contextmanager
def with_threads(number: int) -> Iterator[None]:
    """Let PyTorch and the kernels use this number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(make: Callable[[Variant], Kernel], variant: Variant) -> Kernel:
    """Return the kernel that `make` loads; skip the test only without a C compiler. A variant that
    this CPU can run and that does not compile fails the test."""
    skip_without_compiler()
    return make(variant)
