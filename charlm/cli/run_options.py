"""The options of `charlm runs` and `charlm compare`."""

from __future__ import annotations

from pathlib import Path

from charlm.cli.parser import Verbs, add_verb


def add_runs(verbs: Verbs) -> None:
    """Add the verb `runs`."""
    parser = add_verb(
        verbs,
        "runs",
        "list the runs in a folder",
        """\
examples:
  charlm runs
  charlm runs mybook --curve
  charlm runs elsewhere/checkpoints --json

One line for each run, the newest first. NATS/CHAR is the lowest validation loss. A run is running,
finished, or stopped before its end. Only the metadata of checkpoints are read.
""",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="folder that contains run folders, or a run, given by its name or folder (default: "
        "checkpoints)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--curve", action="store_true", help="draw the losses of each run")
    form.add_argument("--json", action="store_true", help="print the runs as one JSON list")


def add_compare(verbs: Verbs) -> None:
    """Add the verb `compare`."""
    parser = add_verb(
        verbs,
        "compare",
        "show what differs between runs, and their results",
        """\
examples:
  charlm compare checkpoints/mybook checkpoints/wide
  charlm compare checkpoints/*

Prints the settings that differ, on what the runs were computed if that differs, and the results.
A note says if the losses are of different texts or measured differently.
""",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folder, or a checkpoint file for the run at its step; two or more",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
