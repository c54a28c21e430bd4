"""The benchmark of sampling runs to its end; its figures are not looked at."""

from __future__ import annotations

import json

from tests.conftest import ROOT, python
from tests.kernels import skip_without_compiler

BENCH = ROOT / "scripts" / "bench_sample.py"


def test_the_benchmark_of_sampling_runs_to_its_end() -> None:
    skip_without_compiler()
    ended = python(BENCH, "--quick", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    results, more = map(json.loads, ended.stdout.splitlines())
    assert [it["unit"] for it in results["results"]] == ["chars"] * 11 + ["runs"] * 2
    assert {row["network"] for row in more["memory"]} == {"lstm 1 x 8", "gpt 1 x 8"}
    assert more["reading"][0]["share"].endswith("%")


def test_without_a_compiler_it_says_so_in_one_line() -> None:
    ended = python(BENCH, "--quick", env={"CC": "/nonexistent/cc"})
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        "bench sample: it measures the engine in C, and the compiler /nonexistent/cc is not "
        "installed\n"
    )
