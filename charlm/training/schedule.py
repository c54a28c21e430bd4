"""The learning rate over a run: pure functions of how far the run has come."""

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
    """When a run ends: after so many steps, or so many seconds, whichever comes first."""

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, train: TrainConfig, steps_per_epoch: float) -> Limits:
        """The limits of a run; epochs are steps by another name."""
        limits = [train.max_steps] if train.max_steps else []
        if train.max_epochs:
            limits.append(math.ceil(round(train.max_epochs * steps_per_epoch, 6)))
        return cls(steps=min(limits, default=None), seconds=train.max_seconds)

    def fraction(self, step: int, seconds: float, warmup_steps: int = 0) -> float:
        """How much of the run is over, 0 to 1; of the part after warm-up, when that is given."""
        parts = [0.0]
        if self.steps is not None:
            parts.append((step - warmup_steps) / max(1, self.steps - warmup_steps))
        if self.seconds is not None:
            parts.append(seconds / self.seconds)
        return min(1.0, max(parts))

    def reached(self, step: int, seconds: float) -> bool:
        """Whether the run is over."""
        return (self.steps is not None and step >= self.steps) or (
            self.seconds is not None and seconds >= self.seconds
        )


def lr_scale(schedule: ScheduleConfig, step: int, fraction: float, epochs: float) -> float:
    """What the base learning rate is multiplied by at a step; above 0 from the first on.

    Args:
        step: the step about to be taken, from 0.
        fraction: how much of the run after the warm-up is over, 0 to 1.
        epochs: passes over the text made so far.
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
