"""Commands in processes that are forked from a server, which has imported PyTorch once.

To import PyTorch takes seconds, so tests that need many processes use these. Tests of how a process
starts, or of a shell, use subprocess.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

COMMAND_LINE = "import sys; from charlm.__main__ import run; sys.exit(run())"
PRELOADED = ["charlm.training.run", "charlm.training.board", "tests.warm"]


def context() -> ForkServerContext:
    """How to start processes with multiprocessing; all of them share one server."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def start(
    target: Callable[..., None], *arguments: Any, env: dict[str, str] | None = None
) -> BaseProcess:
    """Start a process that calls a function of a module, here and in this environment.

    Args:
        env: more environment variables.
    """
    given = (dict(os.environ) | (env or {}), Path.cwd(), target, arguments)
    process = context().Process(target=_enter, args=given)
    process.start()
    return process


def _enter(
    environment: dict[str, str],
    place: Path,
    target: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    target(*arguments)


@dataclass(frozen=True)
class Running:
    """A process with a command; its output goes into a folder."""

    process: BaseProcess
    folder: Path

    def wait(self, timeout: float) -> subprocess.CompletedProcess[bytes]:
        """Wait until the process ends, at most `timeout` seconds."""
        self.process.join(timeout)
        status = self.process.exitcode
        assert status is not None, "timeout"
        out, err = ((self.folder / name).read_bytes() for name in ("out", "err"))
        return subprocess.CompletedProcess([], status, out, err)


@contextmanager
def running(
    *arguments: str | Path,
    code: str = COMMAND_LINE,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
) -> Iterator[Running]:
    """Run `charlm ARGUMENT...`, or other code with these arguments; kill it at the end.

    Args:
        env: more environment variables.
    """
    folder = Path(tempfile.mkdtemp())
    reader, writer = context().Pipe(duplex=False)
    process = start(_run, code, [*map(str, arguments)], reader, folder, env=env)
    reader.close()
    try:
        with writer, suppress(BrokenPipeError), os.fdopen(os.dup(writer.fileno()), "wb") as pipe:
            pipe.write(stdin)
        yield Running(process, folder)
    finally:
        process.kill()
        process.join()
        shutil.rmtree(folder)


def _run(code: str, arguments: list[str], stdin: Connection[Any, Any], folder: Path) -> None:
    os.dup2(stdin.fileno(), 0)
    stdin.close()
    for number, name in ((1, "out"), (2, "err")):
        stream = os.open(folder / name, os.O_WRONLY | os.O_CREAT)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed the object
    sys.argv = ["charlm", *arguments]
    exec(code, {"__name__": "__main__"})
