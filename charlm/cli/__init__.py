"""The command line: parses the arguments, calls one verb, prints, and returns the exit status.

No other package prints or exits. Exit status: 0 success; 1 another process of the run has ended
and says why; 2 a mistake of the user, reported in one line; 130, 143 and 129 interrupted by SIGINT,
SIGTERM or SIGHUP, with the run saved and temporary files removed. Any other error is a bug and
shows its traceback.

Each verb imports what it needs when it is called, so that `charlm --help` is fast.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence

from charlm.cli import compare, config, data, export, inspect, runs, sample, train, use
from charlm.cli.arguments import make_parser
from charlm.cli.output import message
from charlm.cli.signals import interrupted
from charlm.cli.streams import OutputError, discard_output, standard_streams
from charlm.errors import (
    SMALLER_BATCH,
    SMALLER_MODEL,
    CharlmError,
    PeerEndedError,
    ProcessError,
    name_of_file,
)
from charlm.launch import give_way, is_first_here
from charlm.machine import limit_spinning


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `charlm` with these arguments; returns the exit status."""
    received: list[int] = []
    with standard_streams():
        try:
            with interrupted(received):
                return _run(arguments)
        except BaseException as error:
            # a library may turn the exception that a signal raises into another one
            if not (received or isinstance(error, KeyboardInterrupt)):
                raise
            number = received[0] if received else signal.SIGINT
            if number == signal.SIGINT and is_first_here():
                print(file=sys.stderr)
                for line in getattr(error, "__notes__", ()):
                    print(message(line), file=sys.stderr)
            return 128 + number


def _run(arguments: Sequence[str] | None) -> int:
    options = argparse.Namespace(verb="")
    try:
        try:
            make_parser().parse_args(arguments, options)
            # sampling does more between two steps, and uses one thread when that is faster
            limit_spinning(50_000 if options.verb == "sample" else 5_000)
            return _VERBS.get(options.verb, _help)(options)
        finally:
            sys.stdout.flush()
    except OutputError as error:
        discard_output()
        return 0 if error.has_no_reader else _fail(str(error))
    except PeerEndedError:
        return 1  # the other process says why
    except CharlmError as error:
        if isinstance(error, ProcessError):
            give_way()
        return _fail(*error.lines, verb=options.verb)
    except OSError as error:
        if (line := _explained(error)) is None:
            raise
        return _fail(line)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        advice = SMALLER_BATCH if options.verb == "train" else SMALLER_MODEL
        return _fail(f"out of memory; {advice}")


def _fail(*lines: str, verb: str = "") -> int:
    print(message(*lines, verb=verb), file=sys.stderr)
    return 2


def _explained(error: OSError) -> str | None:
    """The line for an OSError that names a file or folder; None for any other, which is a bug."""
    if (name := name_of_file(error)) is not None:
        return f"{name}: {error.strerror or error}"
    if "temporary directory" in str(error.strerror):  # from tempfile, with the folders it tried
        return f"{error.strerror}; set TMPDIR to a folder that can be written"
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch raises OutOfMemoryError on a GPU, but on a CPU a RuntimeError with this message."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _help(options: argparse.Namespace) -> int:
    """Print the help of a verb; also for `charlm` and `charlm data` alone."""
    words = options.words if options.verb == "help" else options.verb.split()
    make_parser().subparser(words).print_help()
    return 0


_VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "train": train.train,
    "sample": sample.sample,
    "eval": use.evaluate,
    "info": use.info,
    "inspect": inspect.inspect,
    "play": export.play,
    "export": export.export,
    "runs": runs.runs,
    "compare": compare.compare,
    "data stats": data.stats,
    "data list": data.list_texts,
    "data fetch": data.fetch,
    "config check": config.check,
    "config schema": config.schema,
    "config reference": config.print_reference,
}
