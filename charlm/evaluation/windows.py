"""How a GPT reads a text that is longer than its context: in overlapping windows.

Evaluation, sampling and `charlm inspect` follow the same rule, so the measured loss is that of the
text that is sampled. Each window starts with the last half of the window before. So every character
after the first window has at least context // 2 characters before it, and its mean cost does not
grow with the text. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The characters start to stop of a text, which are read at once. The first `skip` of them were
    already part of the window before. A `fresh` window is read from the zero state, any other from
    the state after the window before."""

    start: int
    stop: int
    skip: int = 0
    fresh: bool = True


def stride_of(context: int) -> int:
    """The number of characters from the start of a window to the start of the next."""
    return context - context // 2


def windows(n: int, context: int) -> Iterator[Window]:
    """Yield the windows in which a GPT reads a text of n characters."""
    stride = stride_of(context)
    kept = context - stride
    yield Window(0, min(context, n))
    for start in range(stride, n - kept, stride):
        yield Window(start, min(start + context, n), kept)


def window_start(n: int, context: int, stride: int) -> int:
    """The start of the window that holds the last of n characters."""
    beyond = max(0, n - context)
    return -(-beyond // stride) * stride
