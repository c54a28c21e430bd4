"""scripts/fit_defaults: its runs, and the constants that it prints."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from charlm.config.suggest import Speed
from tests.conftest import script_module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return script_module("fit_defaults")


def test_a_run_trains_on_a_piece_and_is_scored_on_the_end(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "HELD_OUT", 200)
    text = tmp_path / "text.txt"
    text.write_text("abc " * 1000 + "xyz " * 1000, encoding="utf-8")
    losses = [
        script.train(text, script.Spec("text", piece, "rnn", 32, 6000, 0.0))
        for piece in (1000, 6000)  # the second one has seen what is held out
    ]
    assert losses[0] > 2 * losses[1] > 0


def test_a_large_text_is_tried_in_pieces_without_dropout(
    script: ModuleType, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a" * 1_100_000, encoding="utf-8")
    specs = list(script.specs(text, ["lstm"], 3_000_000))
    assert {spec.piece for spec in specs} == {30_000, 100_000, 1_000_000}
    assert {spec.dropout for spec in specs if spec.read < 2 * spec.piece} == {0.0}
    assert all(spec.dropout > 0 for spec in specs if spec.read >= 10 * spec.piece)
    assert len(set(specs)) == len(specs)


@pytest.mark.parametrize("best", [64, 128, 256])
def test_a_ratio_costs_what_its_width_loses_against_the_best_one(
    script: ModuleType, best: int
) -> None:
    widths, read = (64, 128, 256), (1e4, 1e6, 1e8)
    losses = {width: dict.fromkeys(read, 2.0 - (width == best)) for width in widths}
    speed = Speed(0.0, 1e-10, 0.0)
    rows = script.regret("lstm", 10**7, losses, speed)
    assert len(rows) > 3
    for seconds, row in zip(np.geomspace(2, 2000, 25), rows, strict=False):
        known = [width for width in widths if 1e4 <= seconds / (1e-10 * width**2) <= 1e8]
        for ratio, nats in zip(script.RATIOS, row, strict=True):
            enough = [w for w in known if seconds / (1e-10 * w**2) >= ratio * 8 * w**2]
            assert nats == (max(enough, default=min(known)) != best) * (best in known)
