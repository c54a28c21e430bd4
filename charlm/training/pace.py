"""When a run evaluates, samples and ends: by its steps, or by the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from charlm.checkpoint.format import Progress
from charlm.processes import Processes
from charlm.training.schedule import Limits

Every = int | Literal["auto"] | None


class Pace:
    """Decides when a run evaluates, samples and ends.

    Args:
        clock: returns seconds, never fewer than before.
        started: what the clock returned when the command began.
        processes: those that train the run. All of them go by the clock of the first.
    """

    def __init__(
        self,
        limits: Limits,
        progress: Progress,
        clock: Callable[[], float],
        started: float,
        processes: Processes | None = None,
    ) -> None:
        self._limits, self._progress, self._own_clock = limits, progress, clock
        self._processes = processes or Processes()
        self._now, started = self._processes.first((clock(), started))
        self._zero = started - progress.wall_s  # the start of the run, had it never been stopped
        self._took: dict[str, float] = {}  # seconds of what the end of a run does again
        self._first_step = progress.step
        self._was_over = limits.reached(progress.step, progress.wall_s)

    def agree(self, stop: bool) -> bool:
        """Return whether any process wants to stop. All then have the same time."""
        now = self._own_clock() if self._processes.is_first else 0.0
        wish, self._now = self._processes.sum(stop, now)
        return wish > 0

    def _clock(self) -> float:
        """The time now; with several processes, that of the last agreement."""
        return self._own_clock() if self._processes.is_alone else self._now

    def wall_s(self) -> float:
        """The seconds of the run so far, with everything that it did."""
        return self._clock() - self._zero

    def seconds(self) -> float:
        """The seconds of the run so far, and those that the end takes: a last evaluation, a last
        sample and a last checkpoint. `train.max_seconds` limits the sum."""
        return self.wall_s() + sum(self._took.values())

    def is_over(self) -> bool:
        """Whether a limit is reached. A run that was not over takes at least one step, even if its
        start took all its time."""
        step = self._progress.step
        is_new = step == self._first_step and not self._was_over
        return not is_new and self._limits.reached(step, self.seconds())

    def end(self) -> None:
        """Count the run as long as its limit if the time is up, so that a resumed run is over."""
        limit = self._limits.seconds
        if limit is not None and self.seconds() >= limit:
            self._zero = min(self._zero, self._clock() - limit)

    def fraction(self, warmup_steps: int = 0) -> float:
        """The share of the run that is done; see `Limits.fraction`."""
        return self._limits.fraction(self._progress.step, self.seconds(), warmup_steps)

    def is_due(self, every: Every, times: int, last_step: int | None, last_s: float) -> bool:
        """Whether it is time to repeat something: after `every` steps, or `times` in a run.

        Args:
            every: a number of steps; `auto` for `times`; None for never.
            times: how many times in a run.
            last_step, last_s: when it was last done, in steps and `seconds`.
        """
        step = self._progress.step
        if every == "auto":
            done, before = self.fraction(), self._limits.fraction(last_step or 0, last_s)
            is_near_the_end = done > 1 - 0.5 / times  # where it is done anyway
            return _whole(times * done) > _whole(times * before) and not is_near_the_end
        return is_multiple(step, every)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Measure what the end of the run does once more."""
        started = self._own_clock()
        yield
        self._took[what] = self._processes.first(self._own_clock() - started)


def is_multiple(step: int, every: int | None) -> bool:
    """Whether something that is done `every` steps, or never, is due after a step."""
    return every is not None and step > 0 and step % every == 0


def _whole(number: float) -> int:
    return int(number + 1e-9)  # 0.1 + 0.2 counts as 0.3
