"""Commands in processes that are forked from a server, which has imported PyTorch once.

To import PyTorch takes seconds, so tests that need many processes use these. Tests of how a process
starts, or of a shell, use subprocess.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

COMMAND_LINE = "import sys; from charlm.__main__ import run; sys.exit(run())"
PRELOADED = ["charlm.training.run", "charlm.training.board", "torch._dynamo", "tests.warm"]


def context() -> ForkServerContext:
    """How to start processes with multiprocessing; all of them share one server."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


class Warm:
    """A process, with what tests use of subprocess.Popen."""

    def __init__(self, process: BaseProcess, folder: Path) -> None:
        self._process, self._folder = process, folder
        self.pid = int(process.pid or 0)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def outputs(self, timeout: float) -> tuple[bytes, bytes]:
        """Wait until the process ends; return what it wrote to stdout and to stderr."""
        self._process.join(timeout)
        assert self.returncode is not None, "timeout"
        return (self._folder / "out").read_bytes(), (self._folder / "err").read_bytes()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """The same as text."""
        out, err = self.outputs(timeout)
        return out.decode(), err.decode()


@contextmanager
def running(
    *arguments: str | Path,
    code: str = COMMAND_LINE,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
) -> Iterator[Warm]:
    """Run `charlm ARGUMENT...`, or other code with these arguments; kill it at the end.

    Args:
        env: more environment variables.
    """
    folder = Path(tempfile.mkdtemp())
    environment = dict(os.environ) | (env or {})
    reader, writer = context().Pipe(duplex=False)
    given = (code, [*map(str, arguments)], environment, Path.cwd(), reader, folder)
    process = context().Process(target=_enter, args=given)
    process.start()
    reader.close()
    try:
        with writer, suppress(BrokenPipeError), os.fdopen(os.dup(writer.fileno()), "wb") as pipe:
            pipe.write(stdin)
        yield Warm(process, folder)
    finally:
        process.kill()
        process.join()
        shutil.rmtree(folder)


def _enter(
    code: str,
    arguments: list[str],
    environment: dict[str, str],
    place: Path,
    stdin: Connection[Any, Any],
    folder: Path,
) -> None:
    os.dup2(stdin.fileno(), 0)
    stdin.close()
    for number, name in ((1, "out"), (2, "err")):
        stream = os.open(folder / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed the object
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    sys.argv = ["charlm", *arguments]
    exec(code, {"__name__": "__main__"})


def start_all(n: int, target: Callable[..., None], *arguments: Any) -> Sequence[BaseProcess]:
    """Start n processes that call a function of a module with their number and the arguments."""
    children = [context().Process(target=target, args=(i, *arguments)) for i in range(n)]
    for child in children:
        child.start()
    return children
