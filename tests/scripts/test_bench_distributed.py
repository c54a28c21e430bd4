"""The benchmark of several processes; how fast anything is, is not looked at."""

from __future__ import annotations

import json

from tests.conftest import ROOT, python

BENCH = ROOT / "scripts" / "bench_distributed.py"


def test_messages_are_as_many_and_as_large_as_calculated() -> None:
    options = ("--seconds", "0", "--repeats", "1", "--batch-size", "4", "--json")
    ended = python(BENCH, *options, "quickstart")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert [(it["name"], it["work"]) for it in found["results"]] == [
        ("quickstart: 2 processes, 1 of 1 thread", 1),
        ("quickstart: 2 processes, 1 of 2 threads", 1),
    ]
    (row,) = found["rows"]
    assert int(row["messages"]) == row["calculated"] == 3
    assert row["MB"] == row["MB calculated"]


def test_a_batch_that_cannot_be_shared_out_is_reported() -> None:
    ended = python(BENCH, "--batch-size", "3", "quickstart")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "bench distributed: a batch of 3 cannot be shared out; use --batch-size" in ended.stderr
    assert "Traceback" not in ended.stderr
