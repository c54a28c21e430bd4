"""What can go wrong through no fault of charlm.

CharlmError
├── ConfigError       a setting is wrong
├── DataError         a text cannot be read, or does not fit the vocabulary
├── CheckpointError   a checkpoint or a run folder cannot be opened, or cannot be written
├── DeviceError       a device, precision or thread count is not to be had
├── TrainingError     training cannot go on
└── BrokenModelError  a model gives no finite numbers

The terminal shows a CharlmError as its message and exits with status 2. Every other exception is
a bug in charlm and keeps its traceback.
"""


class CharlmError(Exception):
    """The root: the message says what was wrong, where, and what to do."""


class ConfigError(CharlmError):
    """A setting is wrong; the message has one line for each problem."""


class DataError(CharlmError):
    """A text cannot be read, or does not fit the vocabulary."""


class CheckpointError(CharlmError):
    """A checkpoint or a run folder cannot be opened, or cannot be written."""


class DeviceError(CharlmError):
    """A device, precision or thread count is not to be had on this machine."""


class DamageError(ValueError):
    """The content of a checkpoint fails a check; `reading` makes a CheckpointError of it."""


class TrainingError(CharlmError):
    """Training cannot go on, for instance because the loss is no longer a number."""


class BrokenModelError(CharlmError):
    """A model gives no finite numbers, so its weights are not worth using."""
