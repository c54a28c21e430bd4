"""What a training run reports to its observers. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """One line of metrics.jsonl.

    Losses are in nats per character. Times count the training steps only.
    """

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
    """Receives the events of a run. A subclass overrides the methods that it needs."""

    def progress(self, fraction: float) -> None:
        """A step is done. `fraction` is the part of the run that is done, from 0 to 1."""

    def record(self, record: Record) -> None:
        """A loss was measured."""

    def sample(self, step: int, text: str) -> None:
        """A text was sampled from the model."""

    def saved(self, path: Path) -> None:
        """A checkpoint was written."""

    def notice(self, text: str) -> None:
        """A message for the user."""

    def close(self) -> None:
        """The run has ended or was interrupted."""
