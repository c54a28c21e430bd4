"""The benchmark of the page runs to its end; its figures are not looked at."""

from __future__ import annotations

import json

from tests.conftest import ROOT, python
from tests.insight.pages import needs_chromium

BENCH = ROOT / "scripts" / "bench_page.py"


@needs_chromium
def test_the_benchmark_of_the_page_runs_to_its_end() -> None:
    ended = python(BENCH, "--quick", "--json", "--seconds", "0.5")
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = json.loads(ended.stdout)["results"]
    assert [row["network"] for row in rows] == ["lstm 1 x 8", "gru 1 x 8", "rnn 1 x 8", "gpt 1 x 8"]


def test_without_chromium_it_says_so_in_one_line() -> None:
    ended = python(BENCH, "--quick", env={"PATH": "/nonexistent"})
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "bench page: it needs Chromium; install it (on Debian: apt install chromium)\n"
    )
