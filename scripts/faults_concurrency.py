"""scripts/faults concurrency: several processes use one run, or one cache, at the same time.

Exactly one process may train a run. The others end with status 2 and one line, and what is in the
run folder at the end is bit for bit that of a run that was never stopped.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faults_child import Child, Ended, new_place, run_folder
from faults_common import Check, Found, Part, problems_of
from faults_compare import differences, leftovers
from faults_runs import RESUME, RunPlan, draw, reference, warm_up

STARTS = 10
STOPPED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)  # after SIGTERM
PLANS = 3  # different runs for each scenario, in turn


@dataclass
class Scene:
    """One trial: its place, its run, the command that starts it, and what was found."""

    check: Check
    place: Path
    rng: random.Random
    plan: RunPlan
    found: Found
    command: list[str | Path]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return run_folder(self.place)

    def at_once(self, commands: Sequence[Sequence[str | Path | int]]) -> list[Child]:
        """Start commands at the same time."""
        reader, writer = os.pipe()
        children = [self.plan.start(it, self.place, gate=reader, closes=writer) for it in commands]
        os.close(reader)
        os.close(writer)
        return children

    def wait_for_step(self, step: int, child: Child) -> None:
        """Wait until the run has recorded a step, or until the child has ended."""
        file = self.folder / "metrics.jsonl"
        while child.is_running():
            with suppress(OSError):
                if file.read_bytes().count(b"\n") >= step:
                    return
            time.sleep(0.001)

    def check_output(self, ended: Iterable[Ended], allowed: Iterable[int] = (0, 2)) -> None:
        """Check how commands ended and what they printed."""
        for it in ended:
            self.found.problems += problems_of(it, allowed, raw_output=True)

    def one_wins(self, ended: list[Ended]) -> None:
        """Check that exactly one command succeeded, and that the others report why they did not."""
        self.check_output(ended)
        won = sum(it.status == 0 for it in ended)
        self.found.expect(won == 1, "winners", f"{won} of {len(ended)}")

    def is_right(self) -> None:
        """Check the run and its place against the run that was never stopped."""
        if self.found.problems:
            return
        expected = reference(self.check, self.plan).folder
        self.found.problems += [*differences(self.folder, expected), *leftovers(self.place)]


# --- one run ---------------------------------------------------------------------------------


def ten_starts(scene: Scene) -> None:
    """Ten processes start a run of one name."""
    children = scene.at_once([scene.command] * (3 if scene.check.quick else STARTS))
    scene.one_wins([child.wait() for child in children])
    scene.is_right()


def resumes_of_a_live_run(scene: Scene) -> None:
    """A run that is training is resumed and started again."""
    first = scene.plan.start(scene.command, scene.place)
    scene.wait_for_step(scene.rng.randint(1, 3), first)
    others = scene.at_once([RESUME, [*scene.command, "--resume"], scene.command])
    ended = [first.wait(), *(child.wait() for child in others)]
    scene.check_output(ended)
    scene.found.expect(ended[0].status == 0, "winners", ended[0])
    scene.is_right()


def stop_and_resume(scene: Scene) -> None:
    """`kill -TERM; charlm train --resume` at once, before the run has stopped."""
    first = scene.plan.start(scene.command, scene.place)
    scene.wait_for_step(scene.rng.randint(1, 6), first)
    time.sleep(scene.rng.uniform(0, 0.05))
    first.signal(signal.SIGTERM)
    time.sleep(scene.rng.choice((0.0, scene.rng.uniform(0, 0.05))))
    second = scene.plan.start(RESUME, scene.place)
    stopped, resumed = first.wait(), second.wait()
    scene.check_output([stopped], allowed=STOPPED)
    scene.check_output([resumed])
    if resumed.status != 0:
        scene.check_output([scene.plan.start(RESUME, scene.place).wait()], allowed=(0,))
    scene.is_right()


def two_resumes(scene: Scene) -> None:
    """A stopped run is resumed by several processes."""
    _stop(scene)
    children = scene.at_once([RESUME] * 4)
    ended = [child.wait() for child in children]
    scene.check_output(ended)  # one that comes after the end says that the run is finished
    scene.found.expect(any(it.status == 0 for it in ended), "winners", "none")
    scene.is_right()


def _stop(scene: Scene) -> None:
    """Start the run and stop it after some steps."""
    first = scene.plan.start(scene.command, scene.place)
    scene.wait_for_step(scene.rng.randint(1, 3), first)
    first.signal(signal.SIGTERM)
    scene.check_output([first.wait()], allowed=STOPPED)


# --- a run from a pipe -----------------------------------------------------------------------


def pipe_and_file(scene: Scene) -> None:
    """While a run waits for its text from a pipe, another process trains a run of that name."""
    pipe, file = _from_pipe(scene), scene.plan
    command = pipe.write(scene.place)
    reader, writer = os.pipe()
    slow = Child(command, scene.place, stdin=reader, closes=writer)
    os.close(reader)
    time.sleep(scene.rng.uniform(0.05, 0.3))
    ended = file.start(file.write(scene.place), scene.place).wait()
    _write(writer, "another text, which is not that of the other run\n" * 40)
    scene.one_wins([ended, slow.wait()])
    if ended.status == 0:
        scene.is_right()


def pipe_resumes(scene: Scene) -> None:
    """A resume waits for its text from a pipe, while another process resumes the run to its end."""
    pipe = _from_pipe(scene)
    scene.plan, scene.command = pipe, pipe.write(scene.place)
    _stop(scene)
    shutil.rmtree(scene.place / "cache")
    (scene.place / "cache").mkdir()
    reader, writer = os.pipe()
    slow = Child([*scene.command, "--resume"], scene.place, stdin=reader, closes=writer)
    os.close(reader)
    time.sleep(scene.rng.uniform(0.05, 0.3))
    ended = pipe.start(RESUME, scene.place).wait()
    _write(writer, pipe.text)
    waited = slow.wait()
    scene.check_output([ended, waited])
    scene.found.expect(0 in (ended.status, waited.status), "winners", f"{ended}; {waited}")
    scene.is_right()


def _from_pipe(scene: Scene) -> RunPlan:
    return replace(scene.plan, feed="pipe")


def _write(writer: int, text: str) -> None:
    with suppress(BrokenPipeError):
        os.write(writer, text.encode())
    os.close(writer)


# --- one cache -------------------------------------------------------------------------------


def encodings(scene: Scene) -> None:
    """Several processes encode one text, in a cache that does not exist yet."""
    shutil.rmtree(scene.place / "cache")
    command = ["data", "stats", str(_text_path(scene)), "--json"]
    children = scene.at_once([scene.command, *[command] * 5])
    ended = [child.wait() for child in children]
    scene.check_output(ended, allowed=(0,))
    outputs = {it.out for it in ended[1:]}
    scene.found.expect(len(outputs) == 1, "outputs", f"{len(outputs)} different ones")
    scene.is_right()


def compilations(scene: Scene) -> None:
    """Several processes compile the engine in C, in a cache that does not exist yet."""
    ended = scene.plan.start(scene.command, scene.place).wait()
    shutil.rmtree(scene.place / "cache")
    sample: list[Any] = ["sample", "runs/run", "--length", 40, "--seed", 1]
    alone = Child([*sample, "--engine", "numpy"], scene.place).wait()
    children = scene.at_once([[*sample, "--engine", "native"]] * 4)
    together = [child.wait() for child in children]
    if any("engine native: there is no C compiler" in it.err for it in together):
        scene.found.about += " (no compiler)"
        return
    scene.check_output([ended, alone, *together], allowed=(0,))
    outputs = {it.out for it in together}
    scene.found.expect(len(outputs) == 1, "outputs", f"{len(outputs)} different ones")
    scene.found.problems += leftovers(scene.place)


def reading_while_saving(scene: Scene) -> None:
    """A run that saves after every step is sampled, described, evaluated and started from."""
    live = scene.plan.start(scene.command, scene.place)
    scene.wait_for_step(1, live)
    sample: list[Any] = ["sample", "runs/run", "--length", 5, "--seed", 1, "--engine"]
    commands: list[list[Any]] = [
        ["info", "runs/run"],
        ["info", "runs/run/last.safetensors"],
        [*sample, "numpy"],
        [*sample, "torch"],
        ["eval", "runs/run", "--data", str(_text_path(scene)), "--on-unknown", "skip"],
    ]
    while live.is_running():
        scene.check_output([Child(scene.rng.choice(commands), scene.place).wait()], allowed=(0,))
    scene.check_output([live.wait()], allowed=(0,))
    scene.is_right()


def _text_path(scene: Scene) -> Path:
    return scene.place / "work" / "text.txt"


SCENARIOS: tuple[Callable[[Scene], None], ...] = (
    stop_and_resume,
    ten_starts,
    pipe_and_file,
    resumes_of_a_live_run,
    stop_and_resume,
    pipe_resumes,
    encodings,
    two_resumes,
    reading_while_saving,
    stop_and_resume,
    compilations,
)


def trial(check: Check, number: int, folder: Path) -> Found:
    """Do one scenario; they take turns."""
    scenario = SCENARIOS[number % len(SCENARIOS)]
    plan = _slow(check.random("plan", number % PLANS))
    place = new_place(folder)
    found = Found(f"{scenario.__name__}, {plan.settings['model']['kind']}")
    reference(check, plan)  # so that it does not take time from the scenario
    scenario(Scene(check, place, check.random(number), plan, found, plan.write(place)))
    found.problems = list(dict.fromkeys(found.problems))
    return found


def _slow(rng: random.Random) -> RunPlan:
    """A run whose steps take some milliseconds, which records and saves each of them.

    Not with Muon: for matrices of this size, its precision is chosen by measuring, so two correct
    runs may differ.
    """
    plan = draw(rng, steps=rng.choice((8, 12)), feeds=("file",))
    wide = {"hidden_size": 128} if plan.settings["model"]["kind"] != "gpt" else {"n_embd": 64}
    plan = plan.with_train(
        log_every=1,
        save_every=1,
        patience=None,
        batch_size=32 * plan.settings["train"]["grad_accum"],
        optimizer={"kind": rng.choice(("sgd", "rmsprop", "adam", "adamw")), "lr": 0.01},
    )
    changed = {
        "model": plan.settings["model"] | wide,
        "eval": plan.settings["eval"] | {"every": 4},
    }
    return replace(plan, settings=plan.settings | changed)


PART = Part(330, warm_up, trial)
