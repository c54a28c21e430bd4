"""Tables with a heading, as lines that fit a terminal."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from unicodedata import combining, east_asian_width

from charlm.visible import visible

GAP, LEAST, MOST = "  ", 8, 48  # between two columns; the width of a column


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lay out rows of cells, the heading first. On a terminal, wide columns are cut to fit.

    Args:
        right: the columns that are aligned to the right.
    """
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [min(MOST, max(map(_width, column))) for column in zip(*cells, strict=True)]
    limit = _terminal_width()
    while limit and sum(widths) + len(GAP) * (len(widths) - 1) > limit and max(widths) > LEAST:
        widths[widths.index(max(widths))] -= 1
    return [
        GAP.join(
            _padded(cell, width, i in right)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _terminal_width() -> int | None:
    """The width of the terminal that is standard output; None if it is none."""
    try:
        return os.get_terminal_size(1).columns or None
    except OSError:
        return None


def _padded(cell: str, width: int, right: bool) -> str:
    if _width(cell) > width:
        while _width(cell) > width - 1:
            cell = cell[:-1]
        cell += "…"
    space = " " * (width - _width(cell))
    return space + cell if right else cell + space


def _width(text: str) -> int:
    """The number of places on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
