"""The errors that are not bugs in charlm.

CharlmError
├── ConfigError       a setting is wrong
├── DataError         a text cannot be read, or does not match the vocabulary
├── CheckpointError   a checkpoint or a run folder cannot be opened or written
├── DeviceError       a device, precision or thread count is not available
├── TrainingError     training cannot go on
├── ProcessError      the processes of a run do not fit together, or cannot reach each other
│   └── PeerEndedError  another process has ended, and says why
└── BrokenModelError  a model gives outputs that are not finite

The command line prints the message of a CharlmError and exits with status 2. Every other exception
is a bug in charlm and keeps its traceback, apart from an OSError that names a file, and too little
memory.
"""

from __future__ import annotations

import os

# what to do about too little memory: for any model, and for training
SMALLER_MODEL = "use a smaller model"
SMALLER_BATCH = (
    f"{SMALLER_MODEL}, lower train.batch_size, or raise train.grad_accum, which keeps the batch "
    "size"
)


class CharlmError(Exception):
    """The base class: the message says what was wrong, where, and what to do.

    Args:
        lines: a heading and one line for each problem; nearly always one line only. A line may
            contain what is in a file, even a line break, so it must be made visible to be shown.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = lines

    def __str__(self) -> str:
        return "\n  ".join(self.lines)


class ConfigError(CharlmError):
    """A setting is wrong. The message has one line for each problem."""


class DataError(CharlmError):
    """A text cannot be read, or does not match the vocabulary."""


class CheckpointError(CharlmError):
    """A checkpoint or a run folder cannot be opened or written."""


class DeviceError(CharlmError):
    """A device, precision or thread count is not available on this machine."""


class DamageError(ValueError):
    """The content of a checkpoint fails a check; `reading` turns it into a CheckpointError."""


class TrainingError(CharlmError):
    """Training cannot go on, for example because the loss is NaN."""


class ProcessError(CharlmError):
    """The processes of a run do not fit together, or cannot reach each other."""


class PeerEndedError(ProcessError):
    """Another process of the run failed or ended. That one says why.

    Args:
        rank: its number; None if it is not known.
    """

    def __init__(self, rank: int | None = None) -> None:
        super().__init__(f"process {'of this run' if rank is None else rank} ended")


class BrokenModelError(CharlmError):
    """A model gives outputs that are not finite, so its weights are broken."""

    def __init__(self) -> None:
        super().__init__(
            "the model's output is not finite: its weights are broken; use another checkpoint"
        )


def name_of_file(error: OSError) -> str | None:
    """The name of the file that an OSError is about; None if it is not known."""
    name = error.filename  # also bytes, and a number for an open file
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None
