"""The standard streams: what they need before a verb runs, and what happens if they fail."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast


class OutputError(Exception):
    """Standard output cannot be written.

    Attributes:
        has_no_reader: its reader, for example head, has closed the pipe.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: cannot write: {error.strerror or error}")
        self.has_no_reader = isinstance(error, BrokenPipeError)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Inside, all three standard streams exist and write UTF-8 in every locale.

    An error of writing to sys.stdout is an OutputError, and not an OSError, so that it differs from
    an error of another file. An error of writing to sys.stderr is ignored: it cannot be reported.
    """
    _open_missing()
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            # surrogateescape writes a model's bytes unchanged where they are not valid UTF-8
            stream.reconfigure(encoding="utf-8", errors=errors, newline="")
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Stream(sys.stdout, _output_errors))
    sys.stderr = cast(TextIO, _Stream(sys.stderr, partial(suppress, OSError)))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def discard_output() -> None:
    """Discard what standard output has not written yet, and what follows."""
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())


def is_standard_output(path: Path) -> bool:
    """Whether a path is what standard output is, for example /dev/stdout."""
    with suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(1))
    return False


def _open_missing() -> None:
    """Open the null device as each standard stream that is closed (`<&-`, `>&-`, `2>&-`).

    Otherwise the next file that is opened would get its descriptor, and the messages with it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:  # a new file gets the lowest number that is free, which is this one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w" if descriptor else "r"))  # noqa: SIM115


class _Stream:
    """Writes to a stream, each time in a context that handles its errors."""

    def __init__(
        self, stream: TextIO, handling: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._stream, self._handling = stream, handling

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._handling():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._handling():
            self._stream.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error
