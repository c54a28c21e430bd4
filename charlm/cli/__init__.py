"""The terminal: parse, call one verb, print, exit. The only place that does.

Exit status: 0 done; 2 the user's mistake, told in one line; 130, 143 and 129 interrupted by
SIGINT, SIGTERM or SIGHUP, after saving what there was to save. Anything else is a bug and shows
its traceback.

Each verb imports what it needs when it is called, so that `charlm --help` is quick.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from charlm.cli import config, data, inspect, sample, train, use
from charlm.cli.arguments import make_parser
from charlm.errors import CharlmError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `charlm` with these arguments; returns the exit status."""
    _write_utf8()
    try:
        with _output():
            options = make_parser().parse_args(arguments)
            _keep_threads_polite(options.verb)
            return _VERBS[options.verb](options)
    except CharlmError as error:
        print(f"charlm: {as_options(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, such as head, has seen enough
        return 0
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(
            "charlm: out of memory; make the model smaller, lower train.batch_size, or raise "
            "train.grad_accum, which keeps the batch",
            file=sys.stderr,
        )
        return 2


def as_options(message: str) -> str:
    """A library's message with its arguments as the options of the command line: `device=cpu` is
    `--device cpu`, and `resume=True` is `--resume`."""

    def option(found: re.Match[str]) -> str:
        name, value = found[1].replace("_", "-"), found[2]
        return f"--{name}" if value == "True" else f"--{name} {value}"

    return re.sub(rf"(?<![\w.-])({_ARGUMENTS})=(True\b|(?=\S))", option, message)


_ARGUMENTS = "data|device|engine|force|init_from|name|on_unknown|out|precision|resume|split"


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch has a class for it on a GPU, and only a text on a CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _write_utf8() -> None:
    """A model's characters go out as UTF-8 whatever the locale, and line ends as they are."""
    if sys.stdout is None:  # closed by `>&-`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (as long as the process)
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # a model's bytes that are no UTF-8 go out as such
            stream.reconfigure(encoding="utf-8", errors=errors, newline="")


@contextmanager
def _output() -> Iterator[None]:
    """Flush standard output at the end; where it cannot be written, write no more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # not of standard output, which has no name
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise CharlmError(f"standard output: cannot write: {error.strerror}") from error


def _keep_threads_polite(verb: str) -> None:
    """Let idle OpenMP threads spin only briefly before they sleep.

    By default they spin for milliseconds, and where another process wants the core, training
    becomes 20 times slower. Writing finds out by itself when one thread is better, and has more to
    do between the steps. Must be set before torch is imported; a user's own setting stands.
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
