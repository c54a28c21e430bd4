"""What a training run reports, and to whom: to observers. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """One line of metrics.jsonl. Losses are nats per character; times are of training alone."""

    step: int
    split: str  # "train" or "val"
    loss: float
    bits_per_char: float
    chars_seen: int
    elapsed_s: float
    chars_per_s: float | None = None
    lr: float | None = None
    grad_norm: float | None = None


class Observer:
    """Hears of a run; every method may be left out."""

    def progress(self, fraction: float) -> None:
        """A step is done; `fraction` of the run is over, 0 to 1."""

    def record(self, record: Record) -> None:
        """A loss was measured."""

    def sample(self, step: int, text: str) -> None:
        """The model wrote a text."""

    def saved(self, path: Path) -> None:
        """A checkpoint is on the disk."""

    def notice(self, text: str) -> None:
        """Something a user should know."""

    def close(self) -> None:
        """The run is over, or interrupted."""
