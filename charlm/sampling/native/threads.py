"""The number of threads of the native engine, chosen by measuring."""

from __future__ import annotations

import os

from charlm.machine import usable_cpus

MIN_STEPS = 4  # of a trial
WARMUP_CALLS = 2  # not measured after a change, because sleeping threads start slowly
FIRST_TRIAL_S, LONGEST_TRIAL_S = 0.0002, 0.02  # the minimum duration of a trial doubles up to this
TRIAL_INTERVAL = 50  # between two trials, the faster number is used for 50 times a trial's duration
MAX_THREADS = 8  # more threads do not read the weights faster


class ThreadChooser:
    """Chooses one thread or the maximum number, whichever now makes more steps per second.

    Several threads read the weights of a large network faster. For a small network, or on a busy
    machine, they spend more time at barriers than they save. The results are the same to the bit.

    Args:
        limit: the maximum number; by default OMP_NUM_THREADS or the number of usable CPUs. It is
            never above MAX_THREADS.

    Attributes:
        count: the number of threads for the next step.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.count, self._other = 1, min(limit or _default_limit(), MAX_THREADS)
        self._rate = 0.0  # steps per second of the faster number, at its last measurement
        self._trial_s, self._is_trial = FIRST_TRIAL_S, False
        self._start_measuring()

    def _start_measuring(self) -> None:
        self._warmup, self._steps, self._seconds = WARMUP_CALLS, 0, 0.0

    def record(self, seconds: float, steps: int = 1) -> None:
        """Record that one or more steps with `count` threads took this long in total."""
        if self._warmup:
            self._warmup -= 1
            return
        self._steps += steps
        self._seconds += seconds
        duration = self._trial_s * (1 if self._is_trial else TRIAL_INTERVAL)
        if self._seconds < duration or self._steps < MIN_STEPS or self.count == self._other:
            return
        rate = self._steps / self._seconds
        if not self._is_trial:
            self._rate = rate
        else:
            self._trial_s = min(2 * self._trial_s, LONGEST_TRIAL_S)
        if not self._is_trial or rate < self._rate:
            self.count, self._other = self._other, self.count
        self._is_trial = not self._is_trial
        self._start_measuring()


def _default_limit() -> int:
    """The first number of OMP_NUM_THREADS, as OpenMP reads it, or the number of usable CPUs."""
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if value.isdecimal() and int(value) > 0:
        return int(value)
    return usable_cpus()
