"""Shared by the parts of scripts/faults: trials side by side, checks of output, and the table."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import category

from faults_child import Ended

MOST_CHARACTERS = 2000  # of a line of a message
SHOWN = 3  # failing trials of each kind that the report lists


class UnavailableError(Exception):
    """A part cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Check:
    """The options of a part.

    Attributes:
        folder: a private folder; each trial has a folder in it, and keeps it if it fails.
        setup: what the part prepared once for all trials.
    """

    part: str
    folder: Path
    trials: int
    seed: int
    quick: bool = False
    sanitize: bool = False
    setup: Any = None

    def random(self, *names: object) -> random.Random:
        """The random numbers of a trial or of another named thing."""
        return random.Random("/".join(map(str, (self.seed, self.part, *names))))


@dataclass
class Found:
    """The result of a trial.

    Attributes:
        about: what was tried, in a few words.
        problems: lines `kind: detail`; empty if all was right.
    """

    about: str
    problems: list[str] = field(default_factory=list)

    def add(self, kind: str, detail: object = "") -> None:
        """Add a problem."""
        self.problems.append(f"{kind}: {detail}")

    def expect(self, condition: bool, kind: str, detail: object = "") -> None:
        """Add a problem unless the condition holds."""
        if not condition:
            self.add(kind, detail)


@dataclass(frozen=True)
class Part:
    """A part of scripts/faults.

    Attributes:
        trials: their number if none is given.
        prepare: makes what all trials need, in `Check.folder`; its result is `Check.setup`.
        trial: does one trial in its own folder.
        numbers: which trials there are; None for 0 to `Check.trials`.
        environment: variables that this process needs from its start, such as LD_PRELOAD.
    """

    trials: int
    prepare: Callable[[Check], Any]
    trial: Callable[[Check, int, Path], Found]
    numbers: Callable[[Check], Iterable[int]] | None = None
    environment: Callable[[Check], dict[str, str]] | None = None


# --- trials side by side ---------------------------------------------------------------------


def run_trials(
    part: Part, check: Check, numbers: Iterable[int], jobs: int, until: float
) -> Iterator[tuple[int, Found]]:
    """Do trials, each in a child of this process, `jobs` at a time; yield them when they end.

    Args:
        until: begin no trial after this time, of time.monotonic.
    """
    running: dict[int, int] = {}
    remaining = iter(numbers)
    try:
        while True:
            while len(running) < jobs and time.monotonic() < until:
                number = next(remaining, None)
                if number is None:
                    break
                running[_fork(part, check, number)] = number
            if not running:
                return
            pid, status = os.wait()
            number = running.pop(pid)
            yield number, _result(check, number, status)
    finally:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def trial_folder(check: Check, number: int) -> Path:
    """The folder of a trial."""
    return check.folder / f"trial-{number}"


def _fork(part: Part, check: Check, number: int) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the trials
        folder = trial_folder(check, number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            found = part.trial(check, number, folder)
        except BaseException:  # a bug of the harness is a failing trial
            found = Found("the harness itself", [f"harness: {traceback.format_exc()[-600:]}"])
        (folder / "result.json").write_text(json.dumps(asdict(found)))
        if not found.problems:
            remove(folder, keep=("result.json",))
    finally:
        os._exit(0)


def _result(check: Check, number: int, status: int) -> Found:
    path = trial_folder(check, number) / "result.json"
    try:
        found = Found(**json.loads(path.read_text()))
    except (OSError, ValueError):
        return Found("the harness itself", [f"harness: the trial died, status {status}"])
    if not found.problems:
        shutil.rmtree(path.parent, ignore_errors=True)
    return found


def remove(folder: Path, keep: tuple[str, ...] = ()) -> None:
    """Remove what is in a folder of this harness, without following links."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.chmod(0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


# --- checks of what a command printed --------------------------------------------------------

_TRACEBACK = re.compile(
    r"^(Traceback \(most recent call last\)|Exception ignored|Fatal Python)", re.M
)
_WARNING = re.compile(r"^.*\b\w*Warning: .*$", re.M)
_NOTE = "charlm: note: "


def problems_of(
    ended: Ended, allowed: Iterable[int] = (0, 2), raw_output: bool = False
) -> Iterator[str]:
    """Yield what is wrong with the way a command ended and with what it printed.

    Args:
        allowed: the statuses that are right; -N for the end by signal N.
        raw_output: standard output may have any character, as that of `charlm sample`.
    """
    if ended.late:
        yield f"hang: {ended}"
        return
    warning = _WARNING.search(ended.err)
    if (trace := _TRACEBACK.search(ended.err)) and not _is_before_main(ended.err):
        last = ended.err.strip().splitlines()[-1]
        when = " at exit" * ("in atexit" in ended.err or "in <module 'threading'" in ended.err)
        yield f"traceback{when}: {trace[0]}: {last!r:.300}"
    elif ended.status not in set(allowed):
        yield f"status: {ended}"
    elif ended.status == 2 and not warning:
        yield from _wrong_message(ended.err)
    if warning:
        yield f"warning: {warning[0]!r:.300}"
    for name, text in (("stderr", ended.err), ("stdout", "" if raw_output else ended.out)):
        if bad := next(filter(_is_unprintable, text), None):
            line = next(line for line in text.split("\n") if bad in line)
            yield f"control character: {bad!r} on {name}: {line!r:.300}"


def _is_before_main(err: str) -> bool:
    """Whether Ctrl-C reached the interpreter before charlm's run, which cannot catch it then."""
    return err.rstrip().endswith("KeyboardInterrupt") and not re.search(
        r"in (run|main)$|ignored", err, re.M
    )


def _wrong_message(err: str) -> Iterator[str]:
    """Status 2 comes with one line; several wrong settings make a heading and indented lines."""
    lines = [line for line in err.removesuffix("\n").split("\n") if not line.startswith(_NOTE)]
    several = len(lines) > 1 and re.search(r"\d problems(; the first 20)?:$", lines[0])
    indented = [line for line in lines[1:] if line.startswith("  ")]
    if len(lines) != 1 and not (several and len(indented) == len(lines) - 1):
        yield f"lines: {len(lines)} lines of a message: {err!r:.300}"
    elif not lines[0].startswith("charlm"):
        yield f"lines: not a message of charlm: {err!r:.300}"
    if longest := max((line for line in lines if len(line) > MOST_CHARACTERS), default="", key=len):
        yield f"long: a line of {len(longest):,} characters: {longest!r:.200}"


def _is_unprintable(char: str) -> bool:
    return char not in "\n\t" and category(char) in ("Cc", "Cs", "Zl", "Zp")


# --- the report ------------------------------------------------------------------------------


class Report:
    """Counts the trials of a part and prints what they found."""

    def __init__(self, check: Check, command: str) -> None:
        self._check, self._command = check, command
        self._began = self._ended = time.monotonic()
        self.trials = 0
        self.failed: list[tuple[int, Found]] = []

    def add(self, number: int, found: Found) -> None:
        """Count a trial; print its problems at once."""
        self.trials += 1
        self._ended = time.monotonic()
        if found.problems:
            self.failed.append((number, found))
            print(f"trial {number}: {found.about!r:.300}: {found.problems[0]!r:.400}", flush=True)

    def kinds(self) -> dict[str, list[tuple[int, Found, str]]]:
        """The failing trials by the kind of their problems."""
        kinds: dict[str, list[tuple[int, Found, str]]] = {}
        for number, found in sorted(self.failed, key=lambda it: it[0]):
            for kind in dict.fromkeys(problem.partition(":")[0] for problem in found.problems):
                first = next(it for it in found.problems if it.startswith(f"{kind}:"))
                kinds.setdefault(kind, []).append((number, found, first))
        return kinds

    def row(self) -> dict[str, object]:
        """The row of the table, by its headings."""
        kinds = ", ".join(f"{kind} {len(trials)}" for kind, trials in self.kinds().items())
        failed = len(self.failed)
        seconds = round(self._ended - self._began)
        return {
            "part": self._check.part,
            "trials": self.trials,
            "ok": self.trials - failed,
            "failed": failed,
            "kinds of failure": kinds or "-",
            "seconds": seconds,
        }

    def show_failures(self) -> None:
        """Print how to repeat the first failing trials of each kind, and where their files are."""
        for kind, trials in self.kinds().items():
            print(f"\n{self._check.part}, {kind}: {len(trials)} of {self.trials} trials, such as")
            for number, found, first in trials[:SHOWN]:
                print(f"  {number}: {found.about!r:.300}\n    {first!r:.600}")
                print(f"    {self._command} --only {number}")
                print(f"    {trial_folder(self._check, number)}")
