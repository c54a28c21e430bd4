"""A run that takes far longer than its config expects says so, once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from charlm.training import estimate
from charlm.training.estimate import Estimate
from charlm.training.schedule import Limits
from tests.training.helpers import make_config, new_run
from tests.training.test_compute import Notices


def lines_of(
    settings: list[str], seconds_a_step: float, text: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What 100 steps say on a clock by which each takes so long, the first 99 s longer."""
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    train = make_config(text, "lstm", *settings).train
    watched, lines = Estimate(train, Limits.of(train, 10.0)), []
    for step in range(100):
        clock += seconds_a_step + (99 if step == 0 else 0)
        if line := watched.after_step():
            lines.append(line)
    return lines


def test_ten_times_as_long_is_said_once_with_what_to_do(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ["train.max_steps=9000", "train.expected_minutes=2"]
    (line,) = lines_of(expected, 3.6, tiny_text, monkeypatch)
    assert "takes about 9 hours" in line.replace("9.0", "9")
    assert "270 times the 2 minutes that train.expected_minutes says" in line
    assert "train.max_steps" in line
    assert "\n" not in line
    assert lines_of(expected, 2 * 60 * 9.9 / 9000, tiny_text, monkeypatch) == []  # not ten times


@pytest.mark.parametrize(
    "settings",
    [
        ["train.max_steps=9000"],  # nothing is expected
        ["train.max_seconds=60", "train.max_steps=9000", "train.expected_minutes=0.01"],
    ],
)
def test_without_an_expectation_or_with_a_limit_of_time_nothing_is_said(
    settings: list[str], tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines_of(settings, 60, tiny_text, monkeypatch) == []


def test_the_trainer_hands_the_line_on(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "SECONDS", 0.0)
    notices = Notices()
    config = make_config(tiny_text, "lstm", "train.expected_minutes=1e-9")
    new_run(config, tmp_path, observers=[notices])
    (line,) = notices.heard
    assert "the whole run takes about" in line
