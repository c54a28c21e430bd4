"""The limits and the learning rate of a run, as pure functions of its progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

from charlm.config import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    ScheduleConfig,
    TrainConfig,
    WSDSchedule,
)


@dataclass(frozen=True)
class Limits:
    """The number of steps and of seconds after which a run ends, whichever comes first."""

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, train: TrainConfig, steps_per_epoch: float) -> Limits:
        """Return the limits that the settings give; epochs are converted to steps."""
        limits = [train.max_steps] if train.max_steps else []
        if train.max_epochs:
            limits.append(math.ceil(round(train.max_epochs * steps_per_epoch, 6)))
        return cls(steps=min(limits, default=None), seconds=train.max_seconds)

    def warmup_steps(self, schedule: ScheduleConfig) -> int:
        """Return the length of the warm-up: a tenth of a run that is not longer than its own."""
        steps = schedule.warmup_steps
        return steps if self.steps is None or steps < self.steps else self.steps // 10

    def fraction(self, step: int, seconds: float, warmup_steps: int = 0) -> float:
        """Return the share of the run that is done, 0 to 1, not counting `warmup_steps`."""
        shares = [0.0]
        if self.steps is not None:
            shares.append((step - warmup_steps) / max(1, self.steps - warmup_steps))
        if self.seconds is not None:
            shares.append(seconds / self.seconds)
        return min(1.0, max(shares))

    def reached(self, step: int, seconds: float) -> bool:
        """Return whether the run is over."""
        return self.fraction(step, seconds) >= 1


def lr_scale(schedule: ScheduleConfig, step: int, fraction: float, epochs: float) -> float:
    """Return the factor of the base learning rate for a step; above 0 before the end of the run.

    Args:
        step: the number of the step, from 0.
        fraction: the share of the run after the warm-up that is done, 0 to 1.
        epochs: the number of passes over the text so far.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    match schedule:
        case ConstantSchedule():
            return 1.0
        case CosineSchedule(min_lr_ratio=low):
            return low + (1 - low) * (1 + math.cos(math.pi * fraction)) / 2
        case ExponentialSchedule(decay=decay, decay_after=after):
            return decay ** max(0, math.floor(epochs) - max(after, 1) + 1)
        case WSDSchedule(decay_fraction=share, min_lr_ratio=low):
            return low + (1 - low) * min(1.0, (1 - fraction) / share)
    raise AssertionError(schedule)
