"""Estimates how long a run takes, and reports if it is much longer than its config expects."""

from __future__ import annotations

from charlm.config import TrainConfig
from charlm.training.schedule import Limits

MIN_SECONDS, MIN_STEPS = 5.0, 3  # of training before an estimate is made
FACTOR = 10  # a run that takes this many times as long as expected is reported


class Estimate:
    """Compares the speed of a session's first steps with `train.expected_minutes`, once.

    The first step of all is not counted: it allocates memory and may compile.
    """

    def __init__(self, train: TrainConfig, limits: Limits) -> None:
        self._total_steps = limits.steps
        self._expected = None if limits.seconds else train.expected_minutes  # None: no estimate
        self._started: float | None = None
        self._steps = 0

    def after_step(self, now: float) -> str | None:
        """Count a step.

        Args:
            now: the time in seconds on any monotonic clock. Call this after every step.

        Returns:
            A line for the user if the run takes FACTOR times as long as expected, else None.
        """
        expected = self._expected
        if not expected or not self._total_steps:
            return None
        if self._started is None:
            self._started = now
            return None
        self._steps += 1
        seconds = now - self._started
        if seconds < MIN_SECONDS or self._steps < MIN_STEPS:
            return None
        self._expected = None
        minutes = self._total_steps * seconds / self._steps / 60
        if minutes < FACTOR * expected:
            return None
        return (
            f"the whole run takes about {_duration(minutes)} at this speed, "
            f"{minutes / expected:.0f} times the {_duration(expected)} of "
            "train.expected_minutes; if no other program keeps this machine busy, stop with "
            "Ctrl-C and set a lower train.max_steps, a smaller model, or device=cuda if there is "
            "a GPU"
        )


def _duration(minutes: float) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 120 else f"{minutes:.3g} minutes"
