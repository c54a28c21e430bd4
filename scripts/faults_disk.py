"""scripts/faults disk: the Nth write, fsync, rename, ... of a command fails, for every N.

A small library in C, faults_disk.c, is loaded before all others. It counts the calls for files in
the folders of a trial, and makes one call fail, or this call and all later ones. Then the command
is run again without a fault. Nothing may be lost, and the result must be that of a run without
faults.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults_child import Child, Ended, new_place, run_folder
from faults_common import Check, Found, Part, UnavailableError, problems_of
from faults_compare import differences, lasting_leftovers, saved_step
from faults_runs import NATIVE, RESUME, RunPlan, draw, reference, warm_up

CALLS = ("write", "fsync", "rename", "open", "mkdir", "unlink", "flock", "ftruncate")
ERRORS = ("ENOSPC", "EIO", "ENOSYS", "EINTR", "KILL")
COMMANDS = ("train", "resume", "sample", "inspect", "eval", "init-from")
SHIM = Path(__file__).with_suffix(".c")
EVERY = 10**9
Words = list[str | Path | int]  # of a command


@dataclass(frozen=True)
class Fault:
    """What fails: call number `number` of a kind; with `stays`, all later ones, too."""

    plan: int
    command: str
    call: str
    number: int
    error: str
    stays: bool

    def __str__(self) -> str:
        later = " and later ones" * self.stays
        return f"{self.command}: {self.call} {self.number}{later}: {self.error}"


@dataclass(frozen=True)
class Setup:
    """All faults there are to try, in the order in which they are tried, and their runs."""

    plans: list[RunPlan]
    faults: list[Fault]


def prepare(check: Check) -> Setup:
    """Count the calls of every command, and list the faults."""
    warm_up(check)
    plans = [_plan(check, number) for number in range(1 if check.quick else 2)]
    faults = []
    commands = COMMANDS[:1] if check.quick else COMMANDS
    for number, command in itertools.product(range(len(plans)), commands):
        place = new_place(check.folder / f"count-{number}-{command}")
        counts = _count(check, plans[number], place, command)
        for call, total in zip(CALLS, counts, strict=True):
            for n, error in itertools.product(range(1, total + 1), ERRORS):
                can_stay = (False,) if error in ("EINTR", "KILL") else (False, True)
                faults += [Fault(number, command, call, n, error, it) for it in can_stay]
    check.random("order").shuffle(faults)
    return Setup(plans, faults)


def _plan(check: Check, number: int) -> RunPlan:
    """A short run that saves and keeps checkpoints, evaluates, and samples."""
    rng = check.random("plan", number)
    plan = draw(rng, steps=4, feeds=("file",), kind=rng.choice(("rnn", "gpt")))
    train = plan.settings["train"] | {"save_every": 2, "keep_every": 1, "keep_last": 1}
    train |= {"log_every": 1, "patience": None}
    evaluation = plan.settings["eval"] | {"every": 2, "sample_every": 2, "insight": True}
    settings = plan.settings | {"train": train, "eval": evaluation}
    return RunPlan(settings, plan.text[:2000], "file")


def _count(check: Check, plan: RunPlan, place: Path, command: str) -> list[int]:
    """The number of calls of each kind that a command makes."""
    listed = place / "output" / "counts"

    def main(arguments: list[str]) -> int:
        from charlm.cli import main as charlm

        status = charlm(arguments)
        library = _library()
        listed.write_text(json.dumps([library.faults_count(i) for i in range(len(CALLS))]))
        return status

    words = _set_up(check, plan, place, command)
    ended = Child(words, place, main=main, prepare=lambda: _arm(place, "write", 0, "EIO")).wait()
    if ended.status == 2 and command == "sample":  # no compiler for the engine
        return [0] * len(CALLS)
    if ended.status:
        raise UnavailableError(f"{command} fails without a fault: {ended}")
    counts: list[int] = json.loads(listed.read_text())
    return counts


def _set_up(check: Check, plan: RunPlan, place: Path, command: str) -> Words:
    """Prepare a place for a command; returns the command."""
    whole = reference(check, plan)
    runs = place / "work" / "runs"
    if command == "resume":
        shutil.copytree(_half(check, plan), runs / "run")
        shutil.copytree(whole.place / "cache", place / "cache", dirs_exist_ok=True)
    elif command != "train":
        shutil.copytree(whole.folder, runs / "run")
    if command == "inspect":
        (place / "work" / "page.html").write_text("the old page")
    return _words(plan.write(place), command)


def _words(start: Sequence[str | Path], command: str) -> Words:
    page: Words = ["--length", 200, "--out", "page.html", "--force"]
    commands: dict[str, Words] = {
        "train": [*start],
        "resume": [*RESUME],
        "sample": [*NATIVE],
        "inspect": ["inspect", "runs/run", *page],
        "eval": ["eval", "runs/run"],
        "init-from": [*start, "--name", "new", "--init-from", "runs/run"],
    }
    return commands[command]


def _half(check: Check, plan: RunPlan) -> Path:
    """The folder of a run that was stopped by SIGKILL after its first steps."""
    place = check.folder / "references" / f"{plan.digest}-half"
    folder = run_folder(place)
    if not folder.exists():
        new_place(place)
        killed = Child(
            plan.write(place), place, prepare=lambda: _arm(place, "rename", 6, "KILL")
        ).wait()
        if killed.status != -signal.SIGKILL or not (folder / "last.safetensors").exists():
            raise RuntimeError(f"the run was not killed: {killed}")
    return folder


# --- a trial ---------------------------------------------------------------------------------


def trial(check: Check, number: int, folder: Path) -> Found:
    """Run a command with one fault; then run it again without."""
    setup: Setup = check.setup
    fault = setup.faults[number]
    plan, place = setup.plans[fault.plan], new_place(folder)
    found = Found(str(fault))
    words = _set_up(check, plan, place, fault.command)
    before = saved_step(run_folder(place))
    ended = Child(
        words,
        place,
        prepare=lambda: _arm(place, fault.call, fault.number, fault.error, fault.stays),
    ).wait()
    killed = fault.error == "KILL" and ended.status == -signal.SIGKILL
    if not killed:
        found.problems += problems_of(ended, raw_output=fault.command == "sample")
    found.expect("standard output" not in ended.err, "blame", ended)
    no_locks = fault.call == "flock" and fault.error == "ENOSYS"
    found.expect(not no_locks or ended.status == 0, "locks", ended)
    page = place / "work" / "page.html"
    if page.exists() and not killed:
        text = page.read_text(encoding="utf-8")
        whole = text == "the old page" or text.rstrip().endswith("</html>")
        found.expect(whole, "lost", f"page.html has {len(text)} characters")
    now = saved_step(run_folder(place))
    if before is not None:
        found.expect(now is not None and now >= before, "lost", f"step {before}, now {now}")
    _run_again(check, plan, place, fault, ended, found)
    return found


def _run_again(
    check: Check, plan: RunPlan, place: Path, fault: Fault, ended: Ended, found: Found
) -> None:
    """Run the command again, or resume what it had saved. The result must be correct."""
    run = place / "work" / "runs" / ("new" if fault.command == "init-from" else "run")
    trains = fault.command in ("train", "resume", "init-from")
    if trains and ended.status == 0:
        again = ended
    elif trains and (run / "last.safetensors").exists():
        again = Child([*RESUME, "--name", run.name], place).wait()
    else:
        again = Child(_words(plan.write(place), fault.command), place).wait()
    found.problems += [
        f"again: {problem}"
        for problem in problems_of(again, allowed=(0,), raw_output=fault.command == "sample")
    ]
    if again.status == 0 and fault.command in ("train", "resume"):
        found.problems += differences(run, reference(check, plan).folder)
    if again.status == 0 and fault.command != "init-from":
        found.problems += lasting_leftovers(place)


def _arm(place: Path, call: str, number: int, error: str, stays: bool = False) -> None:
    """Make a call of this process fail; with number 0, only count the calls."""
    where = ":".join(str(place / name) for name in ("work", "cache", "home", "tmp"))
    code = 0 if error == "KILL" else getattr(errno, error)
    _library().faults_arm(where.encode(), CALLS.index(call), ctypes.c_long(number), code, stays)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.faults_count.restype = ctypes.c_long
    return library


def numbers(check: Check) -> Iterable[int]:
    """All faults, or the first of them."""
    return range(min(check.trials, len(check.setup.faults)))


def shim(check: Check) -> dict[str, str]:
    """Compile the library that makes calls fail."""
    library = check.folder / "faults_disk.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wno-nonnull-compare"]
    try:
        subprocess.run(
            [*command, str(SHIM), "-o", str(library), "-ldl"],
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        raise UnavailableError("disk needs a C compiler (cc)") from error
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"{SHIM.name} does not compile: {error.stderr}") from error
    return {"LD_PRELOAD": str(library)}


PART = Part(EVERY, prepare, trial, numbers, shim)
