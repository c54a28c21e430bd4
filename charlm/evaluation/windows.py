"""How a GPT reads a text that is longer than its context: in overlapping windows.

Evaluation, sampling and `charlm inspect` all follow this one rule, so that the loss that is
measured is the loss of the text that is sampled. Each window keeps the last half of the one before,
so that every character past the first window has at least context // 2 characters before it, at a
constant mean cost. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The characters start to stop of a text, read from a fresh state; the window before already
    covered the first `skip` of them."""

    start: int
    stop: int
    skip: int


def stride_of(context: int) -> int:
    """How many characters after a window the next one starts."""
    return context - context // 2


def windows(n: int, context: int) -> Iterator[Window]:
    """The windows in which a GPT reads a text of n characters."""
    stride = stride_of(context)
    kept = context - stride
    yield Window(0, min(context, n), 0)
    for start in range(stride, n - kept, stride):
        yield Window(start, min(start + context, n), kept)


def window_start(n: int, context: int, stride: int) -> int:
    """The start of the window in which the last of n characters is read."""
    beyond = max(0, n - context)
    return -(-beyond // stride) * stride
