"""scripts/faults crash: runs are stopped by signals at random instants, and resumed to the end."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from faults_child import Child, Ended, new_place, run_folder
from faults_common import Check, Found, Part, problems_of
from faults_compare import differences, lasting_leftovers, saved_step
from faults_runs import NATIVE, RESUME, SIGNALS, Reference, RunPlan, draw, reference, warm_up

PLANS = 4  # trials for each plan, whose uninterrupted run is trained once
MOST_STOPS = 5  # of one run; after these, it runs to its end
NEW_PROCESS = 0.1  # share of trials in new processes, which may be stopped while they import
COMPILING = 25  # one of this number of trials stops a compilation
IMPORT_S = 4.0  # approximate time that a new process needs to import torch and charlm


def trial(check: Check, number: int, folder: Path) -> Found:
    """Start a run, stop it again and again, resume it to the end, and compare."""
    rng = check.random(number)
    if number % COMPILING == COMPILING - 1:
        return _while_compiling(check, rng, new_place(folder))
    plan, never_stopped = _plan(check, number // PLANS)
    forked = check.quick or rng.random() >= NEW_PROCESS
    model, train = plan.settings["model"]["kind"], plan.settings["train"]
    found = Found(
        f"{model}, {train['optimizer']['kind']}, {train['batches']}, {train['precision']}, kernels "
        f"{train['kernels']}, text from a {plan.feed}, {'forked' if forked else 'a new process'}"
    )
    run = _StoppedRun(plan, new_place(folder), rng, forked, never_stopped, found)
    if check.quick:
        run.signals = ("SIGTERM", "SIGKILL")
    if run.to_the_end():
        found.problems += differences(run.folder, never_stopped.folder)
        found.problems += lasting_leftovers(folder)
    found.about += "; " + ", ".join(run.history)
    return found


def _while_compiling(check: Check, rng: random.Random, place: Path) -> Found:
    """Stop a command that compiles the engine in C. The next one must succeed and leave nothing."""
    found = Found("compiling")
    kind = rng.choice(("lstm", "mlp", "gpt"))
    whole = reference(check, draw(check.random("compiling", kind), feeds=("file",), kind=kind))
    shutil.copytree(whole.folder, run_folder(place))
    child = Child(NATIVE, place)
    _sleep_until(child.began + 10 ** rng.uniform(-1.5, 0.7), child)
    name = rng.choice(SIGNALS)
    child.signal(signal.Signals[name])
    stopped, again = child.wait(), Child(NATIVE, place).wait()
    if "there is no C compiler" in again.err:
        return found
    found.about += f" a {kind}, {name}"
    found.problems += problems_of(stopped, {0, *_statuses(name)}, raw_output=True)
    found.problems += problems_of(again, (0,), raw_output=True)
    found.problems += lasting_leftovers(place)
    return found


def _plan(check: Check, number: int) -> tuple[RunPlan, Reference]:
    """A plan and its run that was never stopped; some in bfloat16, if PyTorch supports it, and some
    with charlm's own kernels, if there is a compiler."""
    rng = check.random("plan", number)
    plan = draw(rng)
    if rng.random() < 0.3 and shutil.which("cc") and not check.quick:
        plan = plan.with_train(kernels="on")
    if rng.random() < 0.25 and not check.quick:
        half = plan.with_train(precision="bf16")
        try:
            return half, reference(check, half)
        except RuntimeError as error:
            if "use fp32 or auto" not in str(error):
                raise
    return plan, reference(check, plan)


class _StoppedRun:
    """A run that is stopped by signals and resumed, as a user would do."""

    def __init__(
        self,
        plan: RunPlan,
        place: Path,
        rng: random.Random,
        forked: bool,
        never_stopped: Reference,
        found: Found,
    ) -> None:
        self._plan, self._place, self._rng, self._forked = plan, place, rng, forked
        self._found = found
        self._users_file: Path | None = None
        self.signals = SIGNALS
        self._seconds = never_stopped.seconds + (0 if forked else IMPORT_S)
        self._start = plan.write(place)
        self.folder = run_folder(place)
        self.history: list[str] = []
        if rng.random() < 0.8:  # otherwise this run encodes the text itself
            shutil.copytree(never_stopped.place / "cache", place / "cache", dirs_exist_ok=True)

    def to_the_end(self) -> bool:
        """Return whether the run came to its end."""
        stops = self._rng.randint(1, MOST_STOPS)
        for attempt in range(MOST_STOPS + 3):
            saved = saved_step(self.folder)
            ended, sent = self._once(saved is not None, is_stopped=attempt < stops)
            self.history.append(
                f"{'resume' if saved is not None else 'start'} {sent or 'to the end'}"
            )
            allowed = {0, *(statuses for name in sent.split("+") for statuses in _statuses(name))}
            self._found.problems += problems_of(ended, allowed)
            if ended.status == 0:
                self._take_users_file()
                return self._kept_its_word(ended, saved)
            self._place_users_file()
            if ended.late or not sent or not self._kept_its_word(ended, saved):
                return False
        self._found.add("endless", self.history)
        return False

    def _once(self, resumes: bool, is_stopped: bool) -> tuple[Ended, str]:
        """Run until the end or until it is stopped; returns how, and the names of the signals."""
        command: list[Any] = [*self._start]
        if resumes:
            command = RESUME if self._rng.random() < 0.5 else [*self._start, "--resume"]
        child = self._plan.start(command, self._place, forked=self._forked)
        sent = []
        if is_stopped:
            _sleep_until(child.began + self._rng.uniform(0, 1.1) * self._seconds, child)
            sent.append(self._rng.choice(self.signals))
            child.signal(signal.Signals[sent[0]])
            twice = self.signals is SIGNALS and sent[0] != "SIGKILL"
            if twice and self._rng.random() < 0.4:
                time.sleep(10 ** self._rng.uniform(-4.5, -0.7))
                sent.append(self._rng.choice(self.signals))
                child.signal(signal.Signals[sent[1]])
        return child.wait(), "+".join(sent)

    def _kept_its_word(self, ended: Ended, before: int | None) -> bool:
        """Check that everything that was saved, or reported as saved, is still there."""
        try:
            now = saved_step(self.folder)
        except (ValueError, KeyError) as error:
            self._found.add("lost", f"last.safetensors is damaged: {error!r}")
            return False
        if before is not None and (now is None or now < before):
            self._found.add("lost", f"step {before} was saved, and now there is {now}")
            return False
        said = f"interrupted at step {now:,}" if now is not None else None
        if "interrupted at step" in ended.out and (said is None or said not in ended.out):
            self._found.add("lost", f"step {now} is saved, but it said {ended.out[-300:]!r}")
            return False
        if ended.status >= 0 and now is not None:
            self._check_kept(before or 0, now)
        return True

    def _check_kept(self, before: int, now: int) -> None:
        """Check that the newest checkpoints of train.keep_every are there."""
        train = self._plan.settings["train"]
        if every := train["keep_every"]:
            steps = [step for step in range(before + 1, now + 1) if step % every == 0]
            names = [f"step-{step:08d}.safetensors" for step in steps[-train["keep_last"] :]]
            missing = [name for name in names if not (self.folder / name).exists()]
            self._found.expect(not missing, "lost", f"{missing} after steps {before} to {now}")

    def _place_users_file(self) -> None:
        """Put a file of the user into the run folder, once."""
        if self._users_file is None and (self.folder / "last.safetensors").exists():
            self._users_file = self.folder / "step-00000001-copy.safetensors"
            self._users_file.write_text("precious")

    def _take_users_file(self) -> None:
        """Check that the user's file is still there, and remove it."""
        if self._users_file is not None:
            self._found.expect(self._users_file.exists(), "lost", f"{self._users_file.name}")
            self._users_file.unlink(missing_ok=True)


def _sleep_until(when: float, child: Child) -> None:
    while time.monotonic() < when and child.is_running():
        time.sleep(max(0.0, min(0.01, when - time.monotonic())))


def _statuses(name: str) -> set[int]:
    """The exit statuses that are correct after a signal: after saving, or ended by the signal."""
    if not name:
        return set()
    number = signal.Signals[name]
    return {-number} if name == "SIGKILL" else {128 + number, -number}


PART = Part(1000, warm_up, trial)
