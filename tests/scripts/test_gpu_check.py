"""The scripts that are run as they stand."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import KINDS, ROOT, python


def test_gpu_check_fills_every_row_of_its_table_without_a_gpu_too(
    tiny_text: Path, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    options = ("--device", "cpu", "--quick", "--data", tiny_text, "--json", result)
    cache = {"CHARLM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    ended = python(ROOT / "scripts" / "gpu_check.py", *options, env=cache, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    rows = json.loads(result.read_text())["rows"]
    table = [line for line in ended.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert [row["part"] for row in rows] == (
        ["exact"] * 9 + ["speed"] * 6 + ["nanogpt"] + ["recipes"] * 5
    )
    assert not any(row["met"] is False or "failed" in row["got"] for row in rows)
    exact = {row["what"].partition(":")[0]: row["got"] for row in rows if row["met"]}
    assert set(KINDS) <= exact.keys()  # each was compared, and agreed
    assert "bit for bit" in exact["lstm, auto"]
    assert all("step 6" in row["got"] for row in rows[-5:-1])  # every recipe came to its end
