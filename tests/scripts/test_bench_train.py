"""The benchmark of training runs; how fast anything is, is not looked at."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import ROOT, python


def test_the_benchmark_of_training_runs_to_its_end(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be: that is the question.\n" * 500, encoding="utf-8")
    options = ("--quick", "--repeats", "1", "--json", "--data", text)
    ended = python(ROOT / "scripts" / "bench_train.py", *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    found = json.loads(ended.stdout)
    assert [it["unit"] for it in found["results"]] == ["chars"] * 4 + ["steps"]
    assert all(it["ours"][0] > 0 and it["theirs"][0] > 0 for it in found["results"])


def test_what_it_does_not_know_is_told() -> None:
    ended = python(ROOT / "scripts" / "bench_train.py", "stpe")
    assert ended.returncode == 2
    assert "stpe: not among step" in ended.stderr
