"""`charlm compare`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from charlm.cli.columns import columns
from charlm.cli.output import print_line, print_note
from charlm.cli.runs import as_json
from charlm.cli.shared_options import RUNS
from charlm.errors import CharlmError, CheckpointError
from charlm.units import bits

if TYPE_CHECKING:
    from charlm.checkpoint.comparison import Comparison
    from charlm.checkpoint.runs import Summary


def compare(options: argparse.Namespace) -> int:
    """Print what differs between runs: their settings, how they were computed, their results."""
    from charlm.checkpoint.comparison import compare_runs
    from charlm.checkpoint.runs import read_run

    found = []
    for given in options.runs:
        try:
            found.append(read_run(given, RUNS))
        except CheckpointError as error:
            print_note(f"left out: {error}")
    if len(found) < 2:
        raise CharlmError("compare: give two or more runs")
    comparison = compare_runs(found)
    if options.json:
        print_line(json.dumps(_as_json(comparison)))
    else:
        _print(comparison)
    return 0


def _as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "runs": [as_json(run) for run in comparison.runs],
        "settings": comparison.settings,
        "computed": comparison.computed,
        "incomparable": comparison.incomparable,
    }


def _print(comparison: Comparison) -> None:
    runs = comparison.runs
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    differing = {**comparison.settings, **comparison.computed}
    rows = [(key, *map(_shown, values)) for key, values in differing.items()]
    results = [*zip(_RESULTS, *map(_results, runs), strict=True)]
    for line in columns([("", *names), *rows, *results]):
        print_line(line)
    if comparison.incomparable:
        reasons = "; ".join(comparison.incomparable)
        print_note(f"these losses cannot be compared: {reasons}")


_RESULTS = ("parameters", "state", "steps", "training", "val nats/char", "val bits/char", "at step")


def _results(run: Summary) -> tuple[str, ...]:
    """The results of a run, in the order of _RESULTS."""
    done = (f"{run.parameters:,}", run.state, f"{run.step:,}", f"{run.seconds:,.0f} s")
    if run.best_loss is None:
        return (*done, "-", "-", "-")
    return (*done, f"{run.best_loss:.4f}", f"{bits(run.best_loss):.4f}", f"{run.best_step:,}")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
