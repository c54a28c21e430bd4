"""How long a run will take, and whether its config expects something else entirely."""

from __future__ import annotations

import time

from charlm.config import TrainConfig
from charlm.training.schedule import Limits

SECONDS, STEPS = 5.0, 3  # of training that an estimate is made from, at least
FACTOR = 10  # times what the config expects, from which on a line says so


class Estimate:
    """Compares the first steps of a session with `train.expected_minutes`, once.

    The very first step is not counted: it allocates memory, and may compile.
    """

    def __init__(self, train: TrainConfig, limits: Limits) -> None:
        self._train, self._limits = train, limits
        self._started, self._steps = 0.0, 0
        self._done = not (train.expected_minutes and limits.steps) or bool(limits.seconds)

    def after_step(self) -> str | None:
        """Called after every step; returns a line where the run will take FACTOR times as long as
        expected."""
        if self._done:
            return None
        if not self._started:
            self._started = time.monotonic()
            return None
        self._steps += 1
        seconds = time.monotonic() - self._started
        if seconds < SECONDS or self._steps < STEPS:
            return None
        self._done = True
        return self._line(seconds / self._steps)

    def _line(self, seconds_per_step: float) -> str | None:
        steps, expected = self._limits.steps, self._train.expected_minutes
        assert steps
        assert expected
        minutes = steps * seconds_per_step / 60
        if minutes < FACTOR * expected:
            return None
        return (
            f"the whole run takes about {_duration(minutes)} at this speed, "
            f"{minutes / expected:.0f} times the {_duration(expected)} that "
            "train.expected_minutes says; if nothing else "
            "keeps this machine busy, stop with Ctrl-C and set a lower train.max_steps, a smaller "
            "model, or device=cuda where there is a GPU"
        )


def _duration(minutes: float) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 120 else f"{minutes:.3g} minutes"
