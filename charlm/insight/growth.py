"""How the text grew: what a run wrote while it was trained, beside its losses."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEAD = re.compile(r"^--- step (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """What the network wrote at a step, its prompt included."""

    step: int
    text: str


@dataclass(frozen=True)
class Growth:
    """The samples of a run, and its losses as (step, nats per character) by split."""

    samples: list[Sample]
    losses: dict[str, list[tuple[int, float]]]


def read_growth(folder: Path) -> Growth:
    """What samples.txt and metrics.jsonl in a run folder say; empty where there are none.

    A line that a crash cut short is passed over.
    """
    losses: dict[str, list[tuple[int, float]]] = {"train": [], "val": []}
    for line in _read(folder / "metrics.jsonl").splitlines():
        record = _record(line)
        if record is not None and record["split"] in losses:
            losses[record["split"]].append((int(record["step"]), float(record["loss"])))
    return Growth(_samples(_read(folder / "samples.txt")), losses)


def _samples(text: str) -> list[Sample]:
    """Split at the headings whose steps rise: a model may write such a line itself."""
    heads: list[re.Match[str]] = []
    for match in _HEAD.finditer(text):
        if not heads or int(match[1]) > int(heads[-1][1]):
            heads.append(match)
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return [
        Sample(int(head[1]), text[head.end() + 1 : end].removesuffix("\n\n"))
        for head, end in zip(heads, ends, strict=False)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        return record if {"step", "split", "loss"} <= record.keys() else None
    except (ValueError, AttributeError):
        return None
