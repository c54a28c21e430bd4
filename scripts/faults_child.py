"""Shared by the parts of scripts/faults: charlm in a child process, with signals and limits.

A child is forked from this process, which has already imported torch and charlm, so it starts in
milliseconds. With forked=False it is a new process, `python -m charlm`, as a user starts it.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import gc
import importlib
import io
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 300.0  # a child that takes longer hangs; most need less than a second, compilers more
MOST_BETWEEN_S = 0.1  # between two looks at a child; more means that this process was suspended
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Limits:
    """Limits of a child, in addition to what this process uses; None for no limit.

    Attributes:
        data_mb: memory, of RLIMIT_DATA: what is allocated, and private maps that can be written.
        cpu_s: seconds of CPU time.
        file_mb: the size of a file that it writes.
    """

    data_mb: int | None = None
    cpu_s: int | None = None
    file_mb: int | None = None

    def apply(self) -> None:
        """Set the limits of this process."""
        if self.data_mb is not None:
            used = _status_mb("VmData") + _status_mb("VmStk")
            _limit(resource.RLIMIT_DATA, int((used + self.data_mb) * 2**20))
        if self.cpu_s is not None:
            own = resource.getrusage(resource.RUSAGE_SELF)
            _limit(resource.RLIMIT_CPU, int(own.ru_utime + own.ru_stime) + self.cpu_s)
        if self.file_mb is not None:
            _limit(resource.RLIMIT_FSIZE, self.file_mb * 2**20)


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status; -N if signal N ended it.
        out, err: its output; bytes that are not UTF-8 are lone surrogates.
        late: it was killed because it took too long.
    """

    status: int
    out: str
    err: str
    late: bool = False

    def __str__(self) -> str:
        last = self.err.strip().splitlines()[-1:] or [""]
        how = signal.Signals(-self.status).name if self.status < 0 else f"status {self.status}"
        return f"{'hang, ' * self.late}{how}: {last[0]!r:.200}"


class Child:
    """A running `charlm ARGUMENTS`.

    Args:
        place: the folder of the trial. The working directory is its `work`; the cache, the home and
            the temporary folder are beside it, and so is the output.
        stdin: a file descriptor; None for an empty standard input.
        gate: the read end of a pipe; a forked child begins when its write end is closed.
        closes: a descriptor of this process that the child does not keep, such as that write end.
        main: the function that a forked child calls instead of charlm's.
        prepare: called in a forked child before `main`.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path | int],
        place: Path,
        forked: bool = True,
        stdin: int | None = None,
        gate: int | None = None,
        closes: int | None = None,
        limits: Limits = Limits(),
        env: dict[str, str] | None = None,
        main: Callable[[list[str]], int] | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.place = place
        self._arguments = [str(argument) for argument in arguments]
        self._env = {**environment(place), **(env or {})}
        self._output = [_new_file(place / "output", suffix) for suffix in ("out", "err")]
        self._ended: Ended | None = None
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if closes is not None:
                    os.close(closes)
                self._become_a_leader(stdin)
                if forked:
                    self._run(gate, limits, main, prepare)
                command = [sys.executable, "-m", "charlm", *self._arguments]
                limits.apply()
                os.execve(sys.executable, command, self._env)
            finally:
                os._exit(70)

    def signal(self, number: int) -> None:
        """Send a signal, unless the child has ended."""
        if self._poll() is None:
            os.kill(self.pid, number)

    def is_running(self) -> bool:
        """Return whether the child has not ended."""
        return self._poll() is None

    def wait(self, limit_s: float = PATIENCE_S) -> Ended:
        """Wait for the end; after `limit_s` kill the child and what it has started.

        Time in which this process does not run, because the machine or both processes are
        suspended, does not count.
        """
        waited, seen, late = 0.0, time.monotonic(), False
        end = os.pidfd_open(self.pid) if self._poll() is None else -1
        while self._poll() is None:
            now = time.monotonic()
            waited, seen = waited + min(now - seen, MOST_BETWEEN_S), now
            if waited > limit_s and not late:
                late = True
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
            select.select([end], [], [], MOST_BETWEEN_S / 2)
        if end >= 0:
            os.close(end)
        assert self._ended is not None
        if late:
            self._ended = Ended(self._ended.status, self._ended.out, self._ended.err, late=True)
        return self._ended

    def _poll(self) -> Ended | None:
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)  # a compiler of a killed child
                out, err = (
                    path.read_bytes().decode("utf-8", "surrogateescape") for path in self._output
                )
                self._ended = Ended(os.waitstatus_to_exitcode(status), out, err)
        return self._ended

    # --- in the child ------------------------------------------------------------------------

    def _become_a_leader(self, stdin: int | None) -> None:
        os.setsid()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        for number, path in enumerate(self._output, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
        os.chdir(self.place / "work")
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE", "SIGXFSZ", "SIGCHLD"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)

    def _run(
        self,
        gate: int | None,
        limits: Limits,
        main: Callable[[list[str]], int] | None,
        prepare: Callable[[], None],
    ) -> None:
        """Call main as the interpreter does, and end the process."""
        os.environ.clear()
        os.environ.update(self._env)
        tempfile.tempdir = None  # it is read from the environment once
        _new_streams()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as the interpreter does
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        faulthandler.disable()
        if gate is not None:
            os.read(gate, 1)
        limits.apply()
        prepare()
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = _status_of(main or _charlm, self._arguments)
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        except KeyboardInterrupt:  # before charlm begins, where the interpreter would end, too
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(status)


def _charlm(arguments: list[str]) -> int:
    """Do what the command `charlm` does."""
    from charlm.__main__ import run

    sys.argv = ["charlm", *arguments]
    return run()


def _status_of(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except KeyboardInterrupt:
        frames = traceback.extract_tb(sys.exc_info()[2])
        if any(frame.name == "run" and "charlm" in frame.filename for frame in frames):
            traceback.print_exc()  # it lets no KeyboardInterrupt through
            return 1
        raise
    except BaseException:
        traceback.print_exc()
        return 1


def _new_streams() -> None:
    """Make sys.stdin, sys.stdout and sys.stderr as the interpreter makes them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        raw: Any = io.FileIO(number, "w" if number else "r", closefd=False)
        buffer = io.BufferedWriter(raw) if number else io.BufferedReader(raw)
        stream = io.TextIOWrapper(
            buffer,
            "utf-8",
            "backslashreplace" if number == 2 else "strict",
            line_buffering=number == 2,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


# --- folders and environment -----------------------------------------------------------------


def new_place(place: Path) -> Path:
    """Make the folders of a trial, and return its folder."""
    for name in ("work", "cache", "home", "tmp", "output"):
        (place / name).mkdir(parents=True, exist_ok=True)
    return place


def run_folder(place: Path) -> Path:
    """The folder of the run of a trial."""
    return place / "work" / "runs" / "run"


def environment(place: Path) -> dict[str, str]:
    """The environment variables of a child: few of the user's, and the folders of the trial."""
    kept = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "CC", "ASAN_OPTIONS", "UBSAN_OPTIONS")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "CHARLM_CACHE": str(place / "cache"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
    }


def _new_file(folder: Path, suffix: str) -> Path:
    number = sum(1 for _ in folder.glob(f"*.{suffix}"))
    while True:
        path = folder / f"{number}.{suffix}"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return path


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, hard))


def _status_mb(field: str) -> float:
    """A size of this process in MB, as Linux reports it."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 2**10
    return 0.0


# --- importing once --------------------------------------------------------------------------


def import_what_is_used(folder: Path, commands: Sequence[Sequence[str | Path | int]]) -> None:
    """Import in this process all modules that the commands import.

    They run in a child, so that this process starts no thread and initialises nothing else: it must
    stay safe to fork.

    Raises:
        RuntimeError: a command fails.
    """

    place, listed = new_place(folder / "warm-up"), folder / "warm-up" / "modules"

    def run_all(_arguments: list[str]) -> int:
        from charlm.cli import main

        for command in commands:
            if status := main([str(word) for word in command]):
                return status
        listed.write_text("\n".join(sys.modules))
        return 0

    ended = Child([], place, main=run_all).wait()
    if ended.status:
        raise RuntimeError(f"the warm-up fails: {ended}\n{ended.err}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in listed.read_text().split("\n"):
            with suppress(Exception):
                importlib.import_module(name)
    for it in [*weakref.finalize._registry]:  # type: ignore[attr-defined]
        it.atexit = False  # each child would run those of PyTorch, for longer than all the rest
    gc.collect()
    gc.freeze()  # otherwise a collection in a child touches, and so copies, all these objects
