"""The benchmark of several processes; how fast anything is, is not looked at."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ROOT, python

BENCH = ROOT / "scripts" / "bench_distributed.py"
SMALL = ("--set=train.batch_size=4", "--set=train.kernels=off", "--set=train.precision=fp32")


def test_messages_are_as_many_and_as_large_as_calculated() -> None:
    options = ("--seconds", "0", "--repeats", "1", "--json")
    ended = python(BENCH, *options, *SMALL, "quickstart")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert [(it["name"], it["work"]) for it in found["results"]] == [
        ("quickstart: 2 processes, 1 of 1 thread", 1),
        ("quickstart: 2 processes, 1 of 2 threads", 1),
    ]
    (row,) = found["rows"]
    assert int(row["messages"]) == row["calculated"] == 3
    assert row["MB"] == row["MB calculated"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.batch_size=3", "a batch of 3 cannot be shared out among 2"),
        ("train.bath_size=3", "train.bath_size"),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line(setting: str, message: str) -> None:
    ended = python(BENCH, "--set", setting, "quickstart")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith("bench distributed: ")
    assert message in ended.stderr
