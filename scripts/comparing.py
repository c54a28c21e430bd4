"""Shared by the benchmarks: two things measured in turn, ratios with their spread, a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from charlm.machine import instruction_set, isa_limit, usable_cpus


@dataclass(frozen=True)
class Comparison:
    """The same work by our code and by other code, in turn: the seconds of each repeat.

    Attributes:
        work: how much each repeat did, of `unit`.
    """

    name: str
    ours: list[float]
    theirs: list[float]
    work: float = 1
    unit: str = "runs"

    @property
    def ratios(self) -> list[float]:
        """Their time over ours, pair by pair, smallest first; above 1 we are faster."""
        return sorted(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    def row(self) -> dict[str, object]:
        """The figures of a table's row."""
        ratios = self.ratios
        return {
            "what": self.name,
            f"ours, {self.unit}/s": figure(self.work / statistics.median(self.ours)),
            f"theirs, {self.unit}/s": figure(self.work / statistics.median(self.theirs)),
            "ratio": f"{statistics.median(ratios):.2f}",
            "from, to": f"{ratios[0]:.2f}, {ratios[-1]:.2f}",
            "pairs": len(ratios),
        }


def in_turn(
    name: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    repeats: int,
    work: float = 1,
    unit: str = "runs",
) -> Comparison:
    """Call both in turn, `repeats` times; each call returns the seconds it took.

    The first call of a pair is ours and theirs in turn. One more pair is called first and is not
    counted.
    """
    ours(), theirs()
    pairs: list[tuple[float, float]] = []
    for i in range(repeats):
        if i % 2:
            second, first = theirs(), ours()
        else:
            first, second = ours(), theirs()
        pairs.append((first, second))
    return Comparison(name, [a for a, _ in pairs], [b for _, b in pairs], work, unit)


def figure(number: float) -> str:
    """A number with three significant digits."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def machine() -> dict[str, object]:
    """The machine and its load."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        cpu = platform.processor()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "cpu": cpu,
        "instructions": instruction_set() + (", limited to these" if isa_limit() else ""),
        "cores": usable_cpus(),
        "load": round(load, 2),
        "python": platform.python_version(),
    }


def show(rows: Iterable[dict[str, object]]) -> None:
    """Print rows of a Markdown table, with a new header where the columns change."""
    head: list[str] = []
    for row in rows:
        if list(row) != head:
            head = list(row)
            print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


def report(
    results: Sequence[Comparison], as_json: bool, rows: Sequence[dict[str, object]] = ()
) -> None:
    """Print all results: as a table with a line for the machine, or as JSON with every repeat.

    Args:
        rows: of another table, after that of the results.
    """
    if as_json:
        found = {"machine": machine(), "results": [asdict(it) for it in results]}
        print(json.dumps(found | ({"rows": rows} if rows else {})))
        return
    show([it.row() for it in results])
    show(rows)
    print("\n" + ", ".join(f"{key} {value}" for key, value in machine().items()))
