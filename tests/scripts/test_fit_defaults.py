"""scripts/fit_defaults: its runs, and the constants that it prints."""

from __future__ import annotations

from dataclasses import asdict
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
        script.train(text, script.by_rule("text", piece, "rnn", 32, 6000, 0.0))
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


def test_other_batches_read_as_many_characters_and_change_nothing_else(script: ModuleType) -> None:
    base = script.by_rule("text", 10**6, "lstm", 64, 10**6, 0.0)
    assert base.is_by_rule
    variants = base.variants()
    assert len(variants) == len(set(variants.values()) - {base}) == 6
    for (key, factor), spec in variants.items():
        assert not spec.is_by_rule
        assert getattr(spec, key) == factor * getattr(base, key)
        assert {it for it in asdict(base) if getattr(spec, it) != getattr(base, it)} == {key}
        read = spec.choice().steps * spec.batch_size * spec.choice().seq_len
        assert read == pytest.approx(base.read, rel=0.05)


def test_the_change_by_another_rate_is_a_mean_over_runs(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    bases = [script.by_rule("text", 10**6, "lstm", width, 10**6, 0.0) for width in (64, 128)]
    doubled = [base.variants()["lr", 2] for base in bases]
    script.report_tuned(dict(zip([*bases, *doubled], (1.5, 1.4, 1.25, 1.25), strict=True)))
    assert capsys.readouterr().out.strip() == "lstm, lr times 2: -0.2000 nats (2 runs)"


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
