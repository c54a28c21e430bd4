"""`charlm runs`."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.cli.columns import columns
from charlm.cli.curve import draw_curve
from charlm.cli.output import print_line, print_note
from charlm.cli.shared_options import RUNS
from charlm.units import bits

if TYPE_CHECKING:
    from charlm.checkpoint.runs import Summary


def runs(options: argparse.Namespace) -> int:
    """List the runs in a folder."""
    from charlm.checkpoint.read import by_name, reading
    from charlm.checkpoint.runs import find_runs

    folder = options.folder or RUNS
    with reading(folder):
        folder = by_name(folder, RUNS)
    found = find_runs(folder, print_note)
    if options.json:
        print_line(json.dumps([as_json(run) for run in found]))
    elif not found:
        print_note(f"{folder}: no runs in this folder")
    else:
        heading = ("NAME", "MODEL", "TEXT", "STEPS", "NATS/CHAR", "AGE", "STATE")
        head, *lines = columns([heading, *map(_row, found)], right=(3, 4, 5))
        print_line(head)
        for line, run in zip(lines, found, strict=True):
            print_line(line)
            if options.curve:
                _print_curve(run.folder)
    return 0


def _print_curve(folder: Path) -> None:
    from charlm.insight.growth import read_growth

    lines = draw_curve(read_growth(folder).losses, shutil.get_terminal_size().columns - 1)
    for line in lines or ["no curve: the run has no losses of two steps"]:
        print_line(line)


def _row(run: Summary) -> tuple[str, ...]:
    best = "-" if run.best_loss is None else f"{run.best_loss:.4f}"
    age = _age(time.time() - run.saved)
    return (run.name, run.model, run.text, f"{run.step:,}", best, age, run.state)


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "now"


def as_json(run: Summary) -> dict[str, Any]:
    """A run as JSON data."""
    best = run.best_loss
    fields = {key: str(it) if isinstance(it, Path) else it for key, it in asdict(run).items()}
    return fields | {"best_bits_per_char": None if best is None else bits(best)}
