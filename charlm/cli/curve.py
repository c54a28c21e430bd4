"""The losses of a run as a small picture in Braille characters, which have 2 x 4 dots each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

COLUMNS, LEAST_COLUMNS = 60, 24  # of the picture
ROWS, LABEL = 5, 7  # lines of the plot; columns of its labels
EARLY = 0.1  # losses in this part of the steps may be too high for the picture
BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of the dots, row by row

Points = list[tuple[int, float]]


def draw_curve(losses: Mapping[str, Sequence[tuple[int, float]]], columns: int) -> list[str]:
    """Draw the training loss as a line and each validation loss as an `o`.

    The top is the highest loss after the first tenth of the steps, since the loss of an untrained
    model would make all others look alike. `≥` is before it if an earlier loss is higher.

    Args:
        losses: (step, loss in nats per character) of `train` and of `val`, from a file.
        columns: of the terminal.

    Returns:
        At most ROWS + 1 lines of at most COLUMNS columns; none if there is nothing to draw, or no
        room for it.
    """
    train, val = (_usable(losses[split]) for split in ("train", "val"))
    steps = [step for step, _ in (*train, *val)]
    if len(set(steps)) < 2 or columns < LEAST_COLUMNS:
        return []
    first, last = min(steps), max(steps)
    start, values = first + EARLY * (last - first), [loss for _, loss in (*train, *val)]
    low, late = min(values), [loss for step, loss in (*train, *val) if step >= start]
    high = max(late) if max(late) > low else max(values)
    top = f"{'≥' * (max(values) > high)}{high:.4g}"
    labels = [top, *[""] * (ROWS - 2), f"{low:.4g}"]
    margin = max(LABEL, *map(len, labels))
    width = min(COLUMNS, columns) - margin - 1

    def dots(points: Points) -> Points:
        """Points as the columns of dots from the left, and the rows from the top, not rounded."""
        wide, tall = (2 * width - 1) / (last - first), (4 * ROWS - 1) / ((high - low) or 1)
        return [(round((step - first) * wide), (high - loss) * tall) for step, loss in points]

    cells = [[0] * width for _ in range(ROWS)]
    for x, y in _line(dots(train)):
        cells[y // 4][x // 2] |= BITS[y % 4][x % 2]
    picture = [[chr(0x2800 + bits) if bits else " " for bits in row] for row in cells]
    for x, row in dots(val):
        if (y := round(row)) >= 0:
            picture[y // 4][x // 2] = "o"
    lines = [f"{it:>{margin}} {''.join(row)}" for it, row in zip(labels, picture, strict=True)]
    shown = ", ".join(["train (line)"] * bool(train) + ["val (o)"] * bool(val))
    heading = f"loss    step {first:,} to {last:,}: {shown}"
    return [line.rstrip() for line in (heading, *lines)]


def _usable(points: Sequence[tuple[int, float]]) -> Points:
    """The points without numbers that cannot be drawn."""
    return [(step, loss) for step, loss in points if 0 <= step < 1e15 and abs(loss) < 1e15]


def _line(points: Points) -> Iterator[tuple[int, int]]:
    """The dots of a line through the mean of the points in each column, within the picture."""
    rows: dict[int, list[float]] = {}
    for x, row in points:
        rows.setdefault(x, []).append(row)
    means = sorted((x, sum(column) / len(column)) for x, column in rows.items())
    before = None
    for (x0, row0), (x1, row1) in itertools.pairwise([*means, means[-1]] if means else []):
        for x in range(x0, max(x1, x0 + 1)):
            y = max(-1, round(row0 + (row1 - row0) * (x - x0) / max(1, x1 - x0)))  # -1: above
            # the dots between this column and the one before belong to this one
            from_y = y if before is None or before == y else before + (1 if y > before else -1)
            for each in range(min(y, from_y), max(y, from_y) + 1):
                if each >= 0:
                    yield x, each
            before = y
