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


def has_compiler() -> bool:
    """Whether a C compiler is installed. It may fail."""
    return any(map(shutil.which, os.environ.get("CC", "").split()[:1] or ["cc", "gcc", "clang"]))


def skip_without_compiler() -> None:
    """Skip the test if no C compiler is installed; one that fails is not a reason to skip."""
    if not has_compiler():
        pytest.skip("no C compiler is installed")


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
