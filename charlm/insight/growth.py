"""How a run progressed: its samples during training, and its losses."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_HEADING = re.compile(r"^--- step (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Sample:
    """A text sampled at a step, with its prompt."""

    step: int
    text: str


@dataclass(frozen=True)
class Growth:
    """The samples of a run, and its losses as (step, nats per character) by split."""

    samples: list[Sample]
    losses: dict[str, list[tuple[int, float]]]


def read_growth(folder: Path) -> Growth:
    """Read samples.txt and metrics.jsonl in a run folder.

    A missing file counts as empty. A line that is no record, which a crash can leave, is skipped.
    """
    losses: dict[str, list[tuple[int, float]]] = {"train": [], "val": []}
    for line in _read(folder / "metrics.jsonl").splitlines():
        with suppress(ValueError, KeyError, TypeError, OverflowError):
            record = json.loads(line)
            losses[record["split"]].append((int(record["step"]), float(record["loss"])))
    return Growth(_samples(_read(folder / "samples.txt")), losses)


def _samples(text: str) -> list[Sample]:
    """The samples in samples.txt. A heading counts only if its step is higher than the one before,
    because a sample can contain a line that looks like a heading."""
    headings: list[re.Match[str]] = []
    for match in _HEADING.finditer(text):
        if not headings or int(match[1]) > int(headings[-1][1]):
            headings.append(match)
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    return [
        Sample(int(heading[1]), text[heading.end() + 1 : end].removesuffix("\n\n"))
        for heading, end in zip(headings, ends, strict=False)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""
