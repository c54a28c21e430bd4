"""What the tests of the kernels share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from charlm.kernels.amx import cpu_has_amx
from charlm.kernels.build import NoKernelError

Kernel = TypeVar("Kernel")


def loaded(make: Callable[[], Kernel]) -> Kernel:
    """The kernel that `make` gives; the test is skipped where there is none."""
    if not cpu_has_amx():
        pytest.skip("this CPU has no AMX")
    try:
        return make()
    except NoKernelError as error:
        pytest.skip(str(error))
