"""A run that takes far longer than its config expects is reported, once."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from charlm.training.estimate import Estimate
from charlm.training.schedule import Limits
from tests.training.helpers import make_config, new_run
from tests.training.test_compute import Notices


def lines_of(settings: list[str], seconds_per_step: float, text: Path) -> list[str]:
    """The lines that 100 steps give. The first step takes 99 s longer than the others."""
    train = make_config(text, "lstm", *settings).train
    estimate = Estimate(train, Limits.of(train, 10.0))
    times = itertools.accumulate([99 + seconds_per_step] + 99 * [seconds_per_step])
    return [line for now in times if (line := estimate.after_step(now))]


def test_ten_times_as_long_is_reported_once_with_what_to_do(tiny_text: Path) -> None:
    expected = ["train.max_steps=9000", "train.expected_minutes=2"]
    (line,) = lines_of(expected, 3.6, tiny_text)
    assert "takes about 9 hours" in line.replace("9.0", "9")
    assert "270 times the 2 minutes of train.expected_minutes" in line
    assert "train.max_steps" in line
    assert "\n" not in line
    assert lines_of(expected, 2 * 60 * 9.9 / 9000, tiny_text) == []  # less than ten times


@pytest.mark.parametrize(
    "settings",
    [
        ["train.max_steps=9000"],  # nothing is expected
        ["train.max_seconds=60", "train.max_steps=9000", "train.expected_minutes=0.01"],
    ],
)
def test_without_an_expectation_or_with_a_time_limit_nothing_is_reported(
    settings: list[str], tiny_text: Path
) -> None:
    assert lines_of(settings, 60, tiny_text) == []


def test_the_trainer_reports_the_line(tiny_text: Path, tmp_path: Path) -> None:
    notices, clock = Notices(), itertools.count(step=20.0).__next__
    config = make_config(tiny_text, "lstm", "train.expected_minutes=1e-9")
    new_run(config, tmp_path, observers=[notices], clock=clock)
    (line,) = notices.lines
    assert "the whole run takes about" in line
