"""How many threads: found out by trying."""

from __future__ import annotations

import os

from charlm.machine import usable_cpus

FEW = 4  # steps that a trial has at least
WAKING = 2  # calls after a change that do not count: sleeping threads are slow to come
FIRST, LONGEST = 0.0002, 0.02  # seconds that a trial takes at least
PAUSE = 50  # times as long the better number is used before the other is tried again
ENOUGH = 8  # threads; more are no faster at reading weights


class Threads:
    """One thread or all of them, whichever makes more steps a second now.

    Together they read the weights of a large network faster; for a small one, or beside other busy
    programs, they wait for each other longer than they work. What is computed is the same to the
    bit.

    Attributes:
        now: how many the next step is to take.
    """

    def __init__(self, most: int | None = None) -> None:
        self.now, self._other = 1, min(most or _allowed(), ENOUGH)
        self._rate = 0.0  # steps a second by the better number, when that was last measured
        self._trial, self._is_trial = FIRST, False
        self._begin()

    def _begin(self) -> None:
        self._waking, self._steps, self._seconds = WAKING, 0, 0.0

    def took(self, seconds: float, steps: int = 1) -> None:
        """One step, or several, took so long."""
        if self._waking:
            self._waking -= 1
            return
        self._steps += steps
        self._seconds += seconds
        enough = self._trial * (1 if self._is_trial else PAUSE)
        if self._seconds < enough or self._steps < FEW or self.now == self._other:
            return
        rate = self._steps / self._seconds
        if not self._is_trial:
            self._rate = rate
        else:
            self._trial = min(2 * self._trial, LONGEST)
        if not self._is_trial or rate < self._rate:
            self.now, self._other = self._other, self.now
        self._is_trial = not self._is_trial
        self._begin()


def _allowed() -> int:
    """OMP_NUM_THREADS, as OpenMP has it; or the CPUs that this process can keep busy."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return usable_cpus()
