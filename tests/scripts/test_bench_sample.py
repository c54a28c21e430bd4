"""The benchmark of writing runs; what it measures is not looked at."""

from __future__ import annotations

import json

from tests.conftest import ROOT, python


def test_the_benchmark_of_writing_runs_to_its_end() -> None:
    ended = python(ROOT / "scripts" / "bench_sample.py", "--quick", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    results, more = map(json.loads, ended.stdout.splitlines())
    assert [it["unit"] for it in results["results"]] == ["chars"] * 6 + ["runs"] * 2
    assert {row["network"] for row in more["memory"]} == {"lstm 1 x 8", "gpt 1 x 8"}
    assert more["reading"][0]["share"].endswith("%")
