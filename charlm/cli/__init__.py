"""The command line: parses the arguments, calls one verb, prints, and returns the exit status.

No other package prints or exits. Exit status: 0 success; 2 a mistake of the user, reported in one
line; 130, 143 and 129 interrupted by SIGINT, SIGTERM or SIGHUP, with the run saved. Any other error
is a bug and shows its traceback.

Each verb imports what it needs when it is called, so that `charlm --help` is fast.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from charlm.cli import config, data, inspect, sample, train, use
from charlm.cli.arguments import make_parser
from charlm.cli.messages import as_options
from charlm.errors import CharlmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `charlm` with these arguments; returns the exit status."""
    _write_utf8()
    try:
        with _output():
            options = make_parser().parse_args(arguments)
            _limit_spinning(options.verb)
            return _VERBS[options.verb](options)
    except CharlmError as error:
        print(f"charlm: {as_options(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, for example head, has closed the pipe
        return 0
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(
            "charlm: out of memory; use a smaller model, lower train.batch_size, or raise "
            "train.grad_accum, which keeps the batch size",
            file=sys.stderr,
        )
        return 2


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch raises OutOfMemoryError on a GPU, but on a CPU a RuntimeError with this message."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _write_utf8() -> None:
    """Make the standard streams write UTF-8 in every locale, and leave line ends unchanged."""
    if sys.stdout is None:  # closed by `>&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (open until the process ends)
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            # surrogateescape writes a model's bytes unchanged where they are not valid UTF-8
            stream.reconfigure(encoding="utf-8", errors=errors, newline="")


@contextmanager
def _output() -> Iterator[None]:
    """Flush standard output at the end. If it cannot be written, discard further output."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # an error of another file: standard output has no name
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise CharlmError(f"standard output: cannot write: {error.strerror}") from error


def _limit_spinning(verb: str) -> None:
    """Let idle OpenMP threads spin only briefly before they sleep.

    By default they spin for milliseconds. If another process needs the core, training then becomes
    20 times slower. Sampling may spin longer: it does more between two steps, and it uses one
    thread when that is faster. The variable must be set before torch is imported. A value set by
    the user is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "50000" if verb == "sample" else "5000")


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": train.train,
    "sample": sample.sample,
    "eval": use.evaluate,
    "info": use.info,
    "inspect": inspect.inspect,
    "data stats": data.stats,
    "data list": data.list_texts,
    "data fetch": data.fetch,
    "config check": config.check,
    "config schema": config.schema,
    "config reference": config.print_reference,
}
