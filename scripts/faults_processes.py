"""scripts/faults processes: runs of several processes under torchrun are stopped by signals."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults_child import PATIENCE_S, ROOT, Child, Ended, new_place, run_folder
from faults_common import Check, Found, Part
from faults_compare import differences, saved_step
from faults_runs import RESUME, RunPlan, draw, warm_up

PLANS = 4  # trials for each plan, whose uninterrupted run is trained once
MOST_STOPS = 3  # commands that are stopped; the next one runs to its end
SIGNALS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT")
VICTIMS = ("first", "another", "torchrun")
LAUNCH_S = 5 * PATIENCE_S  # each process imports torch


def prepare(check: Check) -> None:
    """Import what is forked: torchrun, which then starts new processes."""
    warm_up(check)
    import torch.distributed.run  # noqa: F401


def trial(check: Check, number: int, folder: Path) -> Found:
    """Start a run, stop it again and again, resume it to the end, and compare."""
    rng = check.random(number)
    plan, n = _plan(check, number // PLANS)
    model, train = plan.settings["model"]["kind"], plan.settings["train"]
    found = Found(
        f"{n} processes, {model}, {train['optimizer']['kind']}, {train['batches']}, text from a "
        f"{plan.feed}"
    )
    never_stopped = _reference(check, number // PLANS, plan, n)
    run = _StoppedRun(plan, n, new_place(folder), rng, found)
    if run.to_the_end():
        found.problems += differences(run.folder, run_folder(never_stopped))
    found.about += "; " + ", ".join(run.history)
    return found


def _plan(check: Check, number: int) -> tuple[RunPlan, int]:
    rng = check.random("plan", number)
    plan, n = (
        draw(rng, steps=rng.randint(30, 90), feeds=("file", "folder", "gz")),
        rng.choice((2, 3)),
    )
    parts = plan.settings["train"]["grad_accum"]
    size = n * parts * rng.choice((1, 2))
    return plan.with_train(batch_size=size, compile="off", patience=None), n


def _reference(check: Check, number: int, plan: RunPlan, n: int) -> Path:
    """The place of the run that was never stopped, with the same number of processes."""
    place = check.folder / "references" / f"{number}"
    if not (place / "done").exists():
        shutil.rmtree(place, ignore_errors=True)
        ended = _launch(plan.write(new_place(place)), place, n, 0).wait(LAUNCH_S)
        if ended.status or ended.late:
            raise RuntimeError(f"the run that is not stopped fails: {ended}\n{ended.err}")
        (place / "done").touch()
    return place


def _launch(command: list[Any], place: Path, n: int, restarts: int) -> Child:
    """Start `torchrun -m charlm`."""
    options = ["--standalone", "--nproc-per-node", n, "--max-restarts", restarts, "-m", "charlm"]
    return Child([*options, *command], place, main=_torchrun)


def _torchrun(arguments: list[str]) -> int:
    from torch.distributed.run import main

    main(arguments)
    return 0


@dataclass
class _StoppedRun:
    """A run that is stopped by signals and resumed, as a user would do."""

    plan: RunPlan
    n: int
    place: Path
    rng: random.Random
    found: Found

    def __post_init__(self) -> None:
        self.folder = run_folder(self.place)
        self.history: list[str] = []
        self._start = self.plan.write(self.place)

    def to_the_end(self) -> bool:
        """Return whether the run came to its end."""
        stops = self.rng.randint(1, MOST_STOPS)
        for attempt in range(MOST_STOPS + 2):
            saved, is_stopped = saved_step(self.folder), attempt < stops
            restarts = self.rng.choice((0, 3))
            command = RESUME if saved is not None else self._start
            child = _launch(command, self.place, self.n, restarts)
            sent = (
                self._stop(child, 1 + restarts // 3 * self.rng.randint(0, 1)) if is_stopped else []
            )
            ended = child.wait(LAUNCH_S)
            self.history.append(f"{command[1]} +{restarts} {'+'.join(sent) or 'to the end'}")
            self._check(ended, saved)
            if ended.status == 0:
                return True
            if not sent or self.found.problems:
                break
        self.found.add("endless", self.history)
        return False

    def _stop(self, child: Child, times: int) -> list[str]:
        """Send signals at random instants: while the processes start, or during the training."""
        sent: list[str] = []
        for _ in range(times):
            began = time.monotonic()
            if self.rng.random() < 0.7:
                before = self._modified()
                while child.is_running() and self._modified() == before:
                    time.sleep(0.01)
                pause = self.rng.uniform(0, 1)
            else:
                pause = self.rng.uniform(0, 6)
            while child.is_running() and time.monotonic() < began + PATIENCE_S and pause > 0:
                time.sleep(0.01)
                pause -= 0.01
            if not child.is_running():
                break
            victim, name = self.rng.choice(VICTIMS), self.rng.choice(SIGNALS)
            sent.append(f"{name} to {victim}")
            self._send(child, victim, name)
        return sent

    def _send(self, child: Child, victim: str, name: str) -> None:
        ranks = workers(self.place)
        rank = 0 if victim == "first" else self.rng.randrange(1, self.n)
        if victim == "torchrun":
            child.signal(signal.Signals[name])
        elif rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(ranks[rank], signal.Signals[name])

    def _modified(self) -> int:
        """When the run saved last, in ns; 0 if it has not."""
        try:
            return (self.folder / "last.safetensors").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _check(self, ended: Ended, before: int | None) -> None:
        """Check how a command ended, what it printed, and that nothing saved is lost."""
        expect = self.found.expect
        expect(not ended.late, "hang", ended)
        wrong = [line for line in ended.err.splitlines() if _is_wrong(line)]
        expect(not wrong, "lines", wrong[:3])
        said = ended.out.count("interrupted at step") + ended.out.count("finished at step")
        starts = ended.out.count("model   ")  # torchrun starts a worker again that a signal ended
        expect(said <= starts, "voices", ended.out[-300:])
        deadline = time.monotonic() + PATIENCE_S
        while (left := workers(self.place)) and time.monotonic() < deadline:
            time.sleep(0.02)  # processes whose torchrun was killed stop by themselves
        expect(not left, "left", left)
        for pid in left.values():
            os.kill(pid, signal.SIGKILL)
        now = saved_step(self.folder)
        lost = before is not None and (now is None or now < before)
        expect(not lost, "lost", f"step {before} was saved, and now there is {now}")


def _is_wrong(line: str) -> bool:
    """Whether a line of standard error is part of a traceback of charlm, or an error of it."""
    if line.startswith("charlm"):
        return not line.startswith(("charlm: note: ", "charlm FAILED"))
    return f'File "{ROOT}/charlm/' in line


def workers(place: Path) -> dict[int, int]:
    """The running processes of a trial: their ids by their numbers."""
    found, own = {}, f"CHARLM_CACHE={place / 'cache'}"
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "environ").read_bytes().decode("utf-8", "replace").split("\0")
            rank = next((it[5:] for it in words if it.startswith("RANK=")), None)
            if rank and own in words:
                found[int(rank)] = int(folder.name)
    return found


PART = Part(50, prepare, trial)
