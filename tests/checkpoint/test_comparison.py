"""Which runs can be compared."""

from __future__ import annotations

import pytest

from charlm.checkpoint.comparison import compare_runs
from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.checkpoint.runs import summarize
from tests.conftest import TinyRun


@pytest.mark.parametrize(
    ("scored", "differ"),
    [
        ((None, 500), "all and 500 characters"),
        ((400, 500), "400 and 500 characters"),
        ((500, 500), ""),
        ((5000, None), ""),  # the validation part has about 1,000
        ((5000, 6000), ""),
    ],
)
def test_losses_of_different_parts_of_a_text_are_not_comparable(
    scored: tuple[int | None, int | None], differ: str, tiny_run: TinyRun
) -> None:
    path = tiny_run("lstm") / LAST
    meta = read_meta(path)
    runs = []
    for chars in scored:
        progress = meta.progress.model_copy(update={"eval_chars": chars})
        runs.append((summarize(path, meta), meta.model_copy(update={"progress": progress})))
    reasons = compare_runs(runs).incomparable
    assert len(reasons) == bool(differ)
    assert all(reason.startswith(differ) for reason in reasons)
