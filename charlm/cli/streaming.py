"""Output on standard output and messages on standard error.

Sampled text is flushed often enough to look smooth, but not after every character, which is slow.
"""

from __future__ import annotations

import math
import os
import sys
import time

from charlm.cli.messages import as_options
from charlm.cli.visible import visible

TERMINAL, ELSEWHERE = 0.03, 0.1  # seconds between two flushes, to a terminal and otherwise
# the least probability for each colour (of a terminal's 256), from green to red
COLOURS = ((0.5, 40), (0.2, 148), (0.08, 220), (0.02, 208), (0.0, 196))


class Stream:
    """Standard output. For a terminal, control characters are replaced by escapes."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._interval = TERMINAL if self.is_terminal else ELSEWHERE
        self._flushed = -math.inf  # so that the first character is flushed at once

    def write(self, text: str) -> None:
        """Write text, and flush if the last flush is long enough ago."""
        sys.stdout.write(visible(text) if self.is_terminal else text)
        now = time.monotonic()
        if now - self._flushed >= self._interval:
            sys.stdout.flush()
            self._flushed = now

    def write_coloured(self, text: str, nats: float) -> None:
        """Write a character; on a terminal, in the colour of its probability exp(-nats)."""
        if not self.is_terminal or os.environ.get("NO_COLOR") or text.isspace():
            self.write(text)
            return
        probability = math.exp(-nats)
        colour = next(colour for least, colour in COLOURS if probability >= least)
        sys.stdout.write(f"\033[38;5;{colour}m")
        self.write(text)
        sys.stdout.write("\033[0m")

    def flush(self) -> None:
        """Flush everything that was written."""
        sys.stdout.flush()


def print_note(text: str) -> None:
    """Print a notice of the library to standard error."""
    print_message(f"note: {as_options(text)}")


def print_status(text: str) -> None:
    """Print a message to standard error, but only if that is a terminal."""
    if sys.stderr.isatty():
        print_message(text)


def print_message(text: str) -> None:
    """Print a message to standard error."""
    sys.stdout.flush()  # keeps the order of the two streams
    print(f"charlm: {text}", file=sys.stderr, flush=True)
