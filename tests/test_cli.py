"""smoke"""

import pytest
from tests.conftest import KINDS, Charlm, TinyRun


@pytest.mark.parametrize("kind", KINDS)
def test_x(tiny_run: TinyRun, charlm: Charlm, kind: str) -> None:
    r = charlm("info", tiny_run(kind))
    assert r.status == 0
    r = charlm("sample", tiny_run(kind), "--length", "20", "--seed", "1")
    assert len(r.out) == 20
