"""scripts/faults hostile: damaged and malicious checkpoints, configs, texts and caches.

For any content of a file, a command succeeds, or it ends with status 2 and one printable line. It
runs no code from the file, writes only to its own folders, and its time and memory are bounded.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults_checkpoints import write_hostile
from faults_child import Child, Ended, Limits, new_place, run_folder
from faults_common import Check, Found, Part, UnavailableError, problems_of
from faults_configs import write_hostile_config
from faults_files import Elsewhere
from faults_runs import RunPlan, draw, warm_up
from faults_texts import change_cache, write_hostile_text
from faults_values import MARK

LIMITS = Limits(data_mb=1024, cpu_s=10, file_mb=64)
SAMPLE = ["sample", "runs/run", "--engine", "native", "--length", "2"]
TOO_MANY = 2  # problems of one file; further problems take long and are usually the same
# of 16 trials: 10 checkpoints (C), 5 configs (Y for YAML), a text or a cache (T)
FILES = "CYTCYCCYCCYCCYCC"
COMPILER = "env -u LD_PRELOAD gcc -fsanitize=address,undefined -fno-sanitize-recover=undefined -g"


@dataclass(frozen=True)
class Base:
    """A run that the hostile files are made from."""

    plan: RunPlan
    place: Path

    @property
    def folder(self) -> Path:
        """The run folder."""
        return run_folder(self.place)

    @property
    def kind(self) -> str:
        """The kind of its model."""
        return str(self.plan.settings["model"]["kind"])


def prepare(check: Check) -> list[Base]:
    """Train two runs of each kind, and run all commands on them.

    So a trial does not compile kernels, and measures the speed of no model of their sizes.
    """
    if not check.sanitize:
        warm_up(check)
    kinds = ("lstm",) if check.quick else ("rnn", "gru", "lstm", "mlp", "gpt") * 2
    bases: list[Base] = []
    for number, kind in enumerate(kinds):
        plan = draw(check.random("base", number), steps=6, feeds=("file",), kind=kind)
        base = Base(plan, new_place(check.folder / f"base-{number}"))
        env = {"LD_PRELOAD": ""} if check.sanitize else {}
        forked = not check.sanitize
        child = Child(plan.write(base.place), base.place, forked=forked, env=env)
        ended = child.wait()
        if ended.status:
            raise UnavailableError(f"the run that files are made from fails: {ended}")
        for other in bases:
            if kind == other.kind and (compiled := other.place / "cache" / "kernels").exists():
                shutil.copytree(compiled, base.place / "cache" / "kernels", dirs_exist_ok=True)
        ended = Child(SAMPLE, base.place).wait()
        if ended.status and check.sanitize:
            raise UnavailableError(f"--sanitize: the engine does not run: {ended}")
        if not (check.sanitize or check.quick):
            _use(base, new_place(check.folder / f"use-{number}"))
        bases.append(base)
    return bases


def _use(base: Base, place: Path) -> None:
    """Run all commands on a copy of a run, with its cache; each must succeed."""
    shutil.copytree(base.folder, run_folder(place))
    text, env = str(place / "work" / "text.txt"), {"CHARLM_CACHE": str(base.place / "cache")}
    for command in (
        *_commands("runs/run/last.safetensors", base.plan.write(place), text, ("numpy",)),
        ["data", "stats", text],
    ):
        ended = Child(command, place, env=env).wait()
        if ended.status:
            raise UnavailableError(f"a command fails without a damaged file: {command}: {ended}")


def _commands(
    file: str, start: Sequence[str | Path], text: str, engines: Sequence[str]
) -> list[list[Any]]:
    """The commands that open a checkpoint.

    Args:
        file: the checkpoint.
        start: the command that trains such a run.
        text: the path of its text.
    """
    sample = ["sample", file, "--length", 9, "--seed", 1]
    limits = ["max_steps=9", "max_epochs=null", "max_seconds=null", "threads=1"]
    short = [word for limit in limits for word in ("--set", f"train.{limit}")]
    out = ["--out", "runs", "--device", "cpu"]
    skip = ["--on-unknown", "skip"]
    page = ["--length", 200, "--out", "page.html", "--force"]
    return [
        *([*sample, "--engine", engine, "--num-samples", 2] for engine in engines),
        [*sample, "--novelty"],
        ["info", file, "--json"],
        ["eval", file],
        ["eval", file, "--data", text, *skip],
        ["inspect", file, *page],
        ["inspect", file, "--text", text, *skip, *page],
        ["train", "--resume", "--name", "run", *out, *short],
        [*start, "--name", "new", "--init-from", file, *short],
        ["train", "--data", text, "--name", "n", "--init-from", file, *out, *short],
    ]


def trial(check: Check, number: int, folder: Path) -> Found:
    """Make a hostile file, and run the commands that read such a file."""
    rng = check.random(number)
    place = new_place(folder)
    base: Base = rng.choice(check.setup)
    shutil.copytree(base.place / "cache", place / "cache", dirs_exist_ok=True)
    case = _Case(check, rng, place, base)
    kind = "C" if check.sanitize else FILES[number % len(FILES)]
    if kind == "C":
        case.checkpoint()
    elif kind == "Y":
        case.config()
    elif rng.random() < 0.5:
        case.text()
    else:
        case.cache()
    return case.found


class _Case:
    """One hostile file, in a place of its own."""

    def __init__(self, check: Check, rng: random.Random, place: Path, base: Base) -> None:
        self.check, self.rng, self.place, self.base = check, rng, place, base
        self.found = Found("")
        self.elsewhere = Elsewhere(place)
        self.start = base.plan.write(place)
        self.text_path = str(place / "work" / "text.txt")
        self.runs = place / "work" / "runs"

    # --- files -----------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """A run folder whose checkpoint is hostile, and every command that opens one."""
        shutil.copytree(
            self.base.folder, self.runs / "run", ignore=shutil.ignore_patterns("*tfevents*")
        )
        last, base = self.runs / "run" / "last.safetensors", self.base.folder
        how = write_hostile(
            self.rng, base / "last.safetensors", last, self.text_path, self.elsewhere
        )
        self.found.about = f"checkpoint of a {self.base.kind}: {how}"
        file = "runs/run/last.safetensors"
        if self.check.sanitize:
            self._run(["sample", file, "--engine", "native", "--length", 9, "--seed", 1])
            return
        accepted = self._run(["info", file]).status == 0
        engines = ["numpy", "torch", *["native"] * bool(list(self.place.glob("cache/kernels/*")))]
        commands = _commands(file, self.start, self.text_path, engines)
        count = len(commands) // 2 if accepted and not self.check.quick else 1
        for command in self.rng.sample(commands, count):
            if len(self.found.problems) < TOO_MANY:
                self._run(command)
        page = self.place / "work" / "page.html"
        if page.exists() and MARK in page.read_text("utf-8", "replace"):
            self.found.add("page", "a string of the checkpoint is in the page as it is")

    def config(self) -> None:
        """A hostile config, checked and, if it is accepted, trained with."""
        file = self.place / "work" / "hostile.yaml"
        how = write_hostile_config(self.rng, self.place / "work" / "run.yaml", file, self.elsewhere)
        self.found.about = f"config: {how}"
        accepted = self._run(["config", "check", "hostile.yaml"]).status == 0
        waits = f"path '{self.elsewhere.fifo}'" in how  # for another program, as it should
        if not waits and (accepted or self.rng.random() < 0.2):
            command = ["train", "--config", "hostile.yaml", "--name", "new", *self.start[3:]]
            self._run([*command, "--set", "train.max_steps=3"], may_be_large=True)

    def text(self) -> None:
        """A hostile text, described and trained on."""
        name, how = write_hostile_text(self.rng, self.place / "work" / "hostile", self.elsewhere)
        self.found.about = f"text: {how}"
        command = [*self.start, "--name", "new", "--data", name, "--set", "train.max_steps=3"]
        if how == "fifo":  # charlm waits for another program, as the user asked
            return
        for words in (["data", "stats", name], command):
            self._run(words, may_be_large="sparse" in how or "endless" in how)

    def cache(self) -> None:
        """A hostile cache: the results are those of a new cache, or one line says what is wrong."""
        shutil.copytree(self.base.folder, self.runs / "run")
        commands: list[list[Any]] = [
            ["data", "stats", self.text_path, "--json"],
            ["eval", "runs/run/last.safetensors", "--data", self.text_path, "--json"],
            ["sample", "runs/run/last.safetensors", "--engine", "native", "--length", 20],
        ]
        commands[2] += ["--seed", 1]
        for command in commands[:2]:  # the text of this place is encoded
            self._run(command)
        expected = [self._run(command) for command in commands]
        self.found.about = f"cache: {change_cache(self.rng, self.place / 'cache', self.elsewhere)}"
        for command, before in zip(commands, expected, strict=True):
            ended = self._run(command)
            same = ended.status == 2 or _results(ended) == _results(before)
            self.found.expect(same, "another result", f"{command[0]}: {ended}")

    # --- running ----------------------------------------------------------------------------

    def _run(self, command: Sequence[str | Path | int], may_be_large: bool = False) -> Ended:
        """Run a command under limits, and check how it ends.

        Args:
            may_be_large: it may run out of memory, disk space or time, because the user requested
                something large.
        """
        limits = LIMITS if not self.check.sanitize else Limits(cpu_s=60, file_mb=64)
        escapes = self.place / "output" / "escapes"
        ended = Child(
            command, self.place, limits=limits, prepare=lambda: _watch(self.place, escapes)
        ).wait()
        trains = may_be_large and "\nfolder  " in ended.out and ended.status in (-24, -9)
        words = " ".join(map(str, command[:2]))
        problems = [] if trains else list(problems_of(ended, raw_output=command[0] == "sample"))
        limit = {"out of memory": "memory", "File too large": "disk", "runtime error:": "sanitizer"}
        limit |= {"AddressSanitizer": "sanitizer"}
        for message, kind in limit.items():
            if message in ended.err and not (may_be_large and kind != "sanitizer"):
                problems.append(f"{kind}: {ended}")
        if escapes.exists():
            problems.append(f"escape: {escapes.read_text(errors='replace').splitlines()[0]:.200}")
        if damage := self.elsewhere.damage():
            problems.append(f"escape: elsewhere: {damage}")
        for problem in problems:
            kind, _, detail = problem.partition(":")
            self.found.add(kind, f"{words}:{detail}")
        return ended


def _results(ended: Ended) -> str:
    """What a command printed, without the notices in its JSON: these may name a damaged cache."""
    return re.sub(r'"notices": \[.*?\]', "", ended.out)


def _watch(place: Path, escapes: Path) -> None:
    """Record actions of a child that no file may cause."""
    roots = (f"{place}/", "/dev/null", "/proc/self/")
    changing = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.link"}
    changing |= {"os.chmod", "os.chown", "os.symlink", "shutil.rmtree"}
    compilers = {"cc", "gcc", "clang", "env"}
    busy: list[int] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if busy:
            return
        wrong = event in ("os.system", "socket.connect", "pickle.find_class")
        if event == "subprocess.Popen":
            wrong = os.path.basename(str(arguments[0])) not in compilers  # noqa: PTH119
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            wrong = bool(writes) and not _is_within(arguments[0], roots)
        elif event in changing:
            wrong = not _is_within(arguments[0], roots)
        if wrong:
            busy.append(1)
            with escapes.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{event} {arguments!r}\n")
            busy.clear()

    sys.addaudithook(hook)


def _is_within(path: Any, roots: tuple[str, ...]) -> bool:
    if isinstance(path, int):
        return True
    resolved = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
    return resolved.startswith(roots)


def sanitizers(check: Check) -> dict[str, str]:
    """The environment in which the engine in C is compiled and run with sanitizers."""
    if not check.sanitize:
        return {}
    library = "libasan.so"
    try:
        command = ["gcc", f"-print-file-name={library}"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise UnavailableError(f"--sanitize needs gcc: {error}") from error
    if found == library:
        raise UnavailableError("--sanitize needs gcc with its libasan")
    options = "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048"
    return {"LD_PRELOAD": found, "CC": COMPILER, "ASAN_OPTIONS": options}


PART = Part(16_000, prepare, trial, environment=sanitizers)
