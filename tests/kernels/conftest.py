"""The variants of the kernels that this CPU can run."""

from __future__ import annotations

import pytest

from charlm.kernels.variants import Variant
from tests.kernels import VARIANTS, skip_without_compiler


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda it: it.name)
def variant(request: pytest.FixtureRequest) -> Variant:
    skip_without_compiler()
    found: Variant = request.param
    return found
