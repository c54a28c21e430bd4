"""Fixtures of the tests of the page: runs with a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TinyConfig, train_with
from tests.insight.pages import HOSTILE


@pytest.fixture(scope="session")
def hostile(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind, a run folder with a page. The text contains markup and control characters."""
    from charlm.cli import main

    out = tmp_path_factory.mktemp("hostile")
    text = out / "<img src=x>\x1b[2J\u202e\u2028\n.txt"
    text.write_bytes((HOSTILE * 60).encode("utf-8"))
    runs = {}
    for kind in ("rnn", "lstm", "mlp", "gpt"):
        raw = tiny_config(kind) | {"data": {"path": str(text), "val_fraction": 0.2}}
        runs[kind] = train_with(raw, out)
        with (runs[kind] / "samples.txt").open("a", encoding="utf-8") as file:
            file.write(f"--- step 7\n{HOSTILE}\n\n")
        assert main(["inspect", str(runs[kind]), "--length", "700", "--device", "cpu"]) == 0
    return runs
