"""The runs of an experiment: trained once, continued if they were stopped, measured once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Run:
    """A network to train.

    Attributes:
        data: the text, as for `charlm.train`.
        config: its settings; None to have charlm choose them for the text and the time.
        set: further settings by their dotted names.
    """

    name: str
    data: str
    config: dict[str, Any] | None
    set: dict[str, Any]


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
    known, folder = state_of(runs / run.name), runs / run.name
    if known and known[0].state == "finished":
        return None
    limit = {"train.max_steps": steps} if steps else {"train.max_seconds": seconds}
    try:
        if known:
            charlm.train(resume=folder, out=runs, observers=observers)
        elif run.config is None and not steps:
            charlm.train(
                run.data, minutes=seconds / 60, set=run.set, name=run.name, out=runs,
                observers=observers,
            )  # fmt: skip
        else:
            charlm.train(
                run.data, config=run.config, set=run.set | limit, name=run.name, out=runs,
                observers=observers,
            )  # fmt: skip
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


def table_of_runs(runs: Path, names: Sequence[str]) -> dict[str, Any]:
    """A table of the runs, as a part of the page."""
    rows = []
    for name in names:
        found = state_of(runs / name)
        if found is None:
            continue
        summary, meta = found
        loss = summary.best_loss
        rows.append(
            [
                name, summary.model, f"{summary.parameters:,}", f"{summary.step:,}",
                f"{meta.progress.wall_s / 60:.2f}",
                *(["–", "–"] if loss is None else [f"{loss:.3f}", f"{bits(loss):.3f}"]),
                "" if summary.state == "finished" else summary.state,
            ]
        )  # fmt: skip
    heads = ["run", "network", *map(number, ("parameters", "steps", "minutes", "nats", "bits")), ""]
    caption = "Runs: their time with everything, and the lowest validation loss per character"
    return {"kind": "table", "caption": caption, "heads": heads, "rows": rows}


def number(head: str) -> dict[str, str]:
    """The head of a column of numbers."""
    return {"number": head}
