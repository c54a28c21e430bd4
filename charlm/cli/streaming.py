"""Text on its way to standard output: smooth to watch, and not so often that it costs."""

from __future__ import annotations

import math
import os
import sys
import time

from charlm.cli.visible import visible

TERMINAL, ELSEWHERE = 0.03, 0.1  # seconds between two flushes
# from how likely on a character has which of a terminal's 256 colours, red to green
COLOURS = ((0.5, 40), (0.2, 148), (0.08, 220), (0.02, 208), (0.0, 196))


class Stream:
    """Standard output. A terminal shows control characters as escapes, and obeys none."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._interval = TERMINAL if self.is_terminal else ELSEWHERE
        self._flushed = -math.inf  # so the first character is seen at once

    def write(self, text: str) -> None:
        """Write some text; it is seen soon."""
        sys.stdout.write(visible(text) if self.is_terminal else text)
        now = time.monotonic()
        if now - self._flushed >= self._interval:
            sys.stdout.flush()
            self._flushed = now

    def write_coloured(self, text: str, nats: float) -> None:
        """A character, on a terminal in the colour of its probability exp(-nats)."""
        if not self.is_terminal or os.environ.get("NO_COLOR") or text.isspace():
            self.write(text)
            return
        probability = math.exp(-nats)
        colour = next(colour for least, colour in COLOURS if probability >= least)
        sys.stdout.write(f"\033[38;5;{colour}m")
        self.write(text)
        sys.stdout.write("\033[0m")

    def flush(self) -> None:
        """Let all be seen."""
        sys.stdout.flush()


def note(text: str) -> None:
    """To a person at a terminal; a log or a pipe has no use for it."""
    if sys.stderr.isatty():
        tell(text)


def tell(text: str) -> None:
    """To whoever reads standard error."""
    sys.stdout.flush()  # in the order in which it happened
    print(f"charlm: {text}", file=sys.stderr, flush=True)
