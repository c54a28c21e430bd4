"""How training is shown: on a terminal, and in a pipe as plain lines."""

from __future__ import annotations

import locale
import os
import shutil
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from charlm.cli.curve import draw_curve
from charlm.cli.output import message
from charlm.cli.streams import OutputError
from charlm.insight.growth import read_growth
from charlm.observer import Observer, Record
from charlm.training.run import Run
from charlm.visible import SAMPLE, visible

SECONDS_BETWEEN_LINES = 5.0  # between two training losses, in a pipe
LEAST_BAR = 20  # columns
BOLD, DIM = 1, 2  # codes of a terminal


class View(Observer):
    """Prints a line of progress on a terminal, otherwise a line every few seconds.

    Args:
        plot: whether to draw the losses at each evaluation.

    Attributes:
        closed: standard output was closed by its reader.
    """

    def __init__(self, run: Run, plot: bool = False) -> None:
        self._bar: tqdm[Any] | None = None
        self._terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._colour = self._terminal and not os.environ.get("NO_COLOR")
        self._plot = plot
        self._drawn: list[str] = []  # the newest curve
        self.closed = False
        self._run, self._best = run, run.progress.best_loss
        self._train: Record | None = None  # the newest training loss
        self._fraction = 0.0
        self._first: tuple[float, float] | None = None  # time and fraction at the first step
        self._printed = time.monotonic()

    def begin(self, lines: Iterable[str]) -> None:
        """Print lines that describe the run. A log file has them before the first step."""
        for line in lines:
            self._line(visible(line))

    def progress(self, fraction: float) -> None:
        self._fraction = fraction
        if self._first is None:
            self._first = time.monotonic(), fraction
        if not self._terminal:
            return
        if self._bar is None:
            self._bar = tqdm(
                total=1.0, initial=fraction, bar_format="{desc}", dynamic_ncols=True, leave=False
            )
        status, room = self._status(shutil.get_terminal_size().columns - 1)
        self._bar.bar_format = "{desc}  |{bar}|" if room >= LEAST_BAR else "{desc}"
        self._bar.set_description_str(status, refresh=False)
        self._bar.update(fraction - self._bar.n)

    def _status(self, columns: int) -> tuple[str, int]:
        """The line of the progress bar, and the number of columns that it leaves free.

        `step 812/4,559, epoch 3.6 · loss 1.25 · 51k chars/s · 0:39 left`, or less of it if there
        are fewer columns.
        """
        run, train = self._run, self._train
        step = run.progress.step
        of_steps = f"/{run.limits.steps:,}" if run.limits.steps else ""
        parts = {
            "step": f"step {step:,}{of_steps}",
            "epoch": f", epoch {step / run.steps_per_epoch:.1f}",
            "loss": f" · loss {train.loss:.2f}" if train else "",
            "speed": f" · {_short(train.chars_per_s)} chars/s"
            if train and train.chars_per_s
            else "",
            "left": f" · {left} left" if (left := self._time_left()) else "",
        }
        for dispensable in ("speed", "epoch", "loss", "left"):
            if len("".join(parts.values())) > columns:
                del parts[dispensable]
        status = "".join(parts.values())
        return status, columns - len(status)

    def record(self, record: Record) -> None:
        if record.split == "train":
            self._train = record
        text = f"{record.loss:.4f} nats/char  {record.bits_per_char:.4f} bits/char"
        speed = f"  {record.chars_per_s:,.0f} chars/s" if record.chars_per_s else ""
        if record.split == "val":
            better = self._best is None or record.loss < self._best
            self._best = record.loss if better else self._best
            best = "  best so far" if better else ""
            self._line(f"step {record.step:>6,}  val    {text}{self._styled(best, BOLD)}")
            if self._plot:
                self.draw()
        elif not self._terminal and time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            left = f"  {self._time_left()} left" if self._time_left() else ""
            self._line(f"step {record.step:>6,}  train  {text}{speed}{left}")

    def sample(self, step: int, text: str) -> None:
        self._line(self._styled(f"--- sample at step {step:,}", DIM))
        self._line(visible(text, SAMPLE))
        self._line(self._styled("---", DIM))

    def draw(self) -> None:
        """Draw the losses so far, on a terminal that can show them and has not shown them yet."""
        if not self._terminal or locale.getencoding().lower() not in ("utf-8", "utf8"):
            return
        losses = read_growth(self._run.folder).losses
        drawn = draw_curve(losses, shutil.get_terminal_size().columns - 1)
        if drawn != self._drawn:
            self._drawn = drawn
            for line in drawn:
                self._line(line)

    def notice(self, text: str) -> None:
        tqdm.write(message(f"note: {text}", verb="train"), file=sys.stderr)

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
        """`0:39` or `1:02:03`; empty if it is not known yet."""
        started, at = self._first or (0.0, 0.0)
        if self._first is None or self._fraction <= at:
            return ""
        seconds = (time.monotonic() - started) * (1 - self._fraction) / (self._fraction - at)
        return tqdm.format_interval(seconds).removeprefix("0")

    def _styled(self, text: str, style: int) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour and text else text


def _short(number: float) -> str:
    """`950`, `51k` or `1.2M`."""
    if number < 1000:
        return f"{number:.0f}"
    return f"{number / 1e3:.0f}k" if number < 1e6 else f"{number / 1e6:.1f}M"
