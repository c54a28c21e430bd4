"""How training is shown: on a terminal, and in a pipe as plain lines."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from charlm.cli.output import message
from charlm.cli.streams import OutputError
from charlm.observer import Observer, Record
from charlm.training.run import Run
from charlm.visible import SAMPLE, visible

SECONDS_BETWEEN_LINES = 5.0  # between two training losses, in a pipe
BOLD, DIM = 1, 2  # codes of a terminal


class View(Observer):
    """Prints a progress bar with the losses on a terminal, otherwise a line every few seconds.

    Attributes:
        closed: standard output was closed by its reader.
    """

    def __init__(self, run: Run) -> None:
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self.closed = False
        self._best = run.progress.best_loss
        self._fraction = self._started_at = 0.0
        self._started = self._printed = time.monotonic()

    def begin(self, lines: Iterable[str]) -> None:
        """Print lines that describe the run. A log file has them before the first step."""
        for line in lines:
            self._line(visible(line))

    def progress(self, fraction: float) -> None:
        if self._terminal and self._bar is None:
            self._bar = tqdm(
                total=1.0,
                initial=fraction,
                bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]",
                dynamic_ncols=True,
                leave=False,
            )
        if self._bar is not None:
            self._bar.update(fraction - self._bar.n)
        elif self._fraction == 0.0:
            self._started_at, self._started = fraction, time.monotonic()
        self._fraction = fraction

    def record(self, record: Record) -> None:
        text = f"{record.loss:.4f} nats/char  {record.bits_per_char:.4f} bits/char"
        speed = f"  {record.chars_per_s:,.0f} chars/s" if record.chars_per_s else ""
        if record.split == "val":
            better = self._best is None or record.loss < self._best
            self._best = record.loss if better else self._best
            best = "  best so far" if better else ""
            self._line(f"step {record.step:>6,}  val    {text}{self._styled(best, BOLD)}")
        elif self._bar is not None:
            self._bar.set_description_str(
                f"loss {record.loss:.3f} nats, {record.bits_per_char:.3f} bits/char,"
                f"{speed.replace('  ', ' ')}",
                refresh=False,
            )
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            self._line(f"step {record.step:>6,}  train  {text}{speed}{self._time_left()}")

    def sample(self, step: int, text: str) -> None:
        self._line(self._styled(f"--- sample at step {step:,}", DIM))
        self._line(visible(text, SAMPLE))
        self._line(self._styled("---", DIM))

    def notice(self, text: str) -> None:
        tqdm.write(message(f"note: {text}"), file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _line(self, text: str) -> None:
        try:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except OutputError:
            self.closed = True

    def _time_left(self) -> str:
        done = self._fraction - self._started_at
        if done <= 0:
            return ""
        seconds = (time.monotonic() - self._started) * (1 - self._fraction) / done
        return f"  {tqdm.format_interval(seconds)} left"

    def _styled(self, text: str, style: int) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour and text else text
