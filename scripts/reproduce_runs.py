"""The runs of an experiment: trained once, continued if they were stopped, measured once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import charlm
from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.runs import Summary, read_run
from charlm.errors import TrainingError
from charlm.observer import Observer
from charlm.units import bits
from charlm.visible import visible

Part = dict[str, Any]  # of the page, see reproduce.js


@dataclass(frozen=True)
class Run:
    """A network to train.

    Attributes:
        data: the text, as for `charlm.train`.
        config: its settings; None to have charlm choose them for the text and the time.
        set: further settings by their dotted names.
        original: the text that `data` stands for, or is.
    """

    name: str
    data: str
    config: dict[str, Any] | None
    set: dict[str, Any]
    original: str


def state_of(folder: Path) -> tuple[Summary, Meta] | None:
    """What is known of a run; None if it has no checkpoint yet."""
    return read_run(folder, folder.parent) if (folder / LAST).is_file() else None


def train(
    run: Run, runs: Path, seconds: float, steps: int | None, observers: Sequence[Observer] = ()
) -> str | None:
    """Train a run in the folder `runs`, or continue it. A finished one is left as it is.

    Args:
        seconds: how long a new run may take, with everything.
        steps: a number of steps instead.

    Returns:
        Why the training failed; None if it did not.

    Raises:
        CharlmError: the run cannot start.
        KeyboardInterrupt: it was interrupted, and has been saved.
    """
    known = state_of(runs / run.name)
    if known and known[0].state == "finished":
        return None
    settings: dict[str, Any] = {"data": run.data, "name": run.name, "set": run.set}
    if known:
        settings = {"resume": runs / run.name}
    elif run.config is None and not steps:
        settings["minutes"] = seconds / 60
    else:
        limit = {"train.max_steps": steps} if steps else {"train.max_seconds": seconds}
        settings |= {"config": run.config, "set": run.set | limit}
    try:
        charlm.train(out=runs, observers=observers, **settings)
    except TrainingError as error:  # such as a loss that is not finite
        return visible(str(error))
    return None


def kept(path: Path, key: object, compute: Callable[[], Any]) -> Any:
    """What `compute` returns, as JSON. It is kept in a file, and computed again for another key."""
    key = json.loads(json.dumps(key))
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] == key:
            return found["value"]
    value = json.loads(json.dumps(compute()))
    path.write_text(json.dumps({"key": key, "value": value}), encoding="utf-8")
    return value


# --- parts of the page ------------------------------------------------------------------------


def part(kind: str, **fields: Any) -> Part:
    """A part of the page; reproduce.js has its kinds and their fields."""
    return {"kind": kind, **fields}


def table(caption: str, heads: str, rows: Iterable[Sequence[object]]) -> Part:
    """A table. The heads are divided by |. A column of numbers is aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    return part("table", caption=caption, heads=heads.split("|"), rows=cells)


def table_of_runs(states: Iterable[tuple[Summary, Meta]]) -> Part:
    rows = []
    for run, meta in states:
        loss = run.best_loss
        losses = ("–", "–") if loss is None else (f"{loss:.3f}", f"{bits(loss):.3f}")
        minutes, state = meta.progress.wall_s / 60, run.state.replace("finished", "")
        sizes = f"{run.parameters:,}", f"{run.step:,}", f"{minutes:.2f}"
        rows.append((run.name, run.model, *sizes, *losses, state))
    caption = "Their time with everything, and the lowest validation loss per character"
    return table(caption, "run|network|parameters|steps|minutes|nats|bits|", rows)
