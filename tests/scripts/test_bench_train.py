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
    assert [
        (it["name"].split(", batch")[0], it["unit"], it["work"]) for it in found["results"]
    ] == [
        ("step, lstm 1x64, Muon", "chars", 2 * 32 * 64),
        ("step, gru 1x64, Muon", "chars", 2 * 32 * 64),
        ("step, rnn 1x64, Muon", "chars", 2 * 32 * 64),
        ("step, lstm 2x64, RMSProp", "chars", 2 * 50 * 50),
        ("step of a GPT 4x128", "chars", 2 * 12 * 64),
        ("step of a GPT 4x128", "chars", 2 * 12 * 64),
        ("5 steps of quickstart, bare / as a run", "steps", 5),
    ]
    assert all(len(it["ours"]) == len(it["theirs"]) == 1 for it in found["results"])
    assert {"cpu", "instructions", "cores", "load", "python"} == found["machine"].keys()


def test_an_unknown_part_is_reported() -> None:
    ended = python(ROOT / "scripts" / "bench_train.py", "stpe")
    assert ended.returncode == 2
    assert "stpe: not among step" in ended.stderr
