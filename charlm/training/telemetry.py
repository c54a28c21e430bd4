"""The log files of a run folder: metrics.jsonl, samples.txt and TensorBoard's."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import torch

from charlm.checkpoint.format import Progress
from charlm.checkpoint.write import writing
from charlm.config import Config
from charlm.observer import Observer, Record

if TYPE_CHECKING:
    from charlm.training.board import Board


class RunLog(Observer):
    """Writes metrics.jsonl, samples.txt and TensorBoard's files into a run folder.

    A resumed run removes what was written after the checkpoint and writes it again. So the files
    are those of a run that was never stopped.

    Args:
        sizes: what `sizes()` returned when the checkpoint was saved; {} for a new run.
    """

    FILES = ("metrics.jsonl", "samples.txt")
    board: Board  # from open() on

    def __init__(
        self, folder: Path, config: Config, device: torch.device, sizes: dict[str, int]
    ) -> None:
        self._folder, self._config, self._device = folder, config, device
        self._sizes = sizes
        self._files: dict[str, TextIO] = {}

    def open(self, progress: Progress) -> None:
        """Open the files for a new run, or for one that continues after this progress."""
        from charlm.training.board import Board  # takes a second to import

        with writing(self._folder):
            for name in self.FILES:
                path = self._folder / name
                _cut(path, self._sizes.get(name, 0))
                self._files[name] = path.open(
                    "a", encoding="utf-8", errors="surrogateescape", newline=""
                )
            self.board = Board(self._folder, self._config, progress)

    def sizes(self) -> dict[str, int]:
        """Flush all files; return the bytes written to metrics.jsonl and samples.txt so far."""
        with writing(self._folder):
            for file in self._files.values():
                file.flush()
        return {name: (self._folder / name).stat().st_size for name in self._files}

    def record(self, record: Record) -> None:
        fields = {key: value for key, value in asdict(record).items() if value is not None}
        scalars = {
            "loss": record.loss,
            "bits_per_char": record.bits_per_char,
            "lr": record.lr,
            "grad_norm": record.grad_norm,
            "chars_per_s": record.chars_per_s,
            "memory_mb": memory_mb(self._device) if record.split == "train" else None,
        }
        with writing(self._folder):
            self._append("metrics.jsonl", json.dumps(fields) + "\n")
            self.board.measured(record.split, record.step, scalars)

    def sample(self, step: int, text: str) -> None:
        with writing(self._folder):
            self._append("samples.txt", f"--- step {step}\n{text}\n\n")
            self.board.sample(text, step)

    def _append(self, name: str, text: str) -> None:
        """Write and flush, so that a `kill -9` loses nothing."""
        self._files[name].write(text)
        self._files[name].flush()

    def close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # a full disk was reported before
                file.close()
        if hasattr(self, "board"):
            self.board.close()


def _cut(path: Path, size: int) -> None:
    """Cut a file to `size` bytes if it is longer."""
    if path.exists() and path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)


def memory_mb(device: torch.device) -> float | None:
    """Return the peak memory in MB of a CUDA device, else of the process; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else kB
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
