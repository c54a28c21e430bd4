"""Sampled text on standard output.

It is flushed often enough to look smooth, but not after every character, which is slow.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable

from charlm.visible import SAMPLE, visible

TERMINAL, ELSEWHERE = 0.03, 0.1  # seconds between two flushes, to a terminal and otherwise
# the least probability for each colour (of a terminal's 256), from green to red
COLOURS = ((0.5, 40), (0.2, 148), (0.08, 220), (0.02, 208), (0.0, 196))


class Stream:
    """Standard output. For a terminal, control characters are replaced by escapes.

    Args:
        coloured: whether a terminal shows the probability of text as a colour. The environment
            variable NO_COLOR turns this off.
        clock: returns seconds, never fewer than before.
    """

    def __init__(self, coloured: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._coloured = coloured and self.is_terminal and not os.environ.get("NO_COLOR")
        self._clock, self._interval = clock, TERMINAL if self.is_terminal else ELSEWHERE
        self._flushed = -math.inf  # so that the first character is flushed at once

    def write(self, text: str, nats: float | None = None) -> None:
        """Write text, and flush if the last flush is long enough ago.

        Args:
            nats: -ln of the probability of the text, for its colour; None for no colour.
        """
        shown = visible(text, SAMPLE) if self.is_terminal else text
        if self._coloured and nats is not None and not text.isspace():
            probability = math.exp(-nats)
            colour = next(colour for least, colour in COLOURS if probability >= least)
            shown = f"\033[38;5;{colour}m{shown}\033[0m"
        sys.stdout.write(shown)
        now = self._clock()
        if now - self._flushed >= self._interval:
            sys.stdout.flush()
            self._flushed = now
