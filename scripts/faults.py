#!/usr/bin/env python3
"""Tests charlm with thousands of faults, and reports what it did wrong.

    scripts/faults crash         training is killed at random instants, resumed until it is
                                 finished, and compared with a run that was never stopped
    scripts/faults disk          the Nth write, fsync, rename, ... of a run fails, for every N
    scripts/faults hostile       damaged and malicious checkpoints, configs, texts and caches
    scripts/faults concurrency   several processes use one run or one cache at the same time
    scripts/faults processes     runs of several processes under torchrun are stopped by signals to
                                 one of them or to torchrun, and restarted or resumed

A trial depends only on --seed and its number; --only N repeats one. A failing trial keeps its
folder. All files are in a private folder under $TMPDIR. The program damages files on purpose, so it
does not run as root: with --as-user NAME, it first becomes that user for good.

Exit status: 0: all trials passed; 1: some failed; 2: the program cannot run here.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"  # this process forks, so it must have no threads

from comparing import show  # noqa: E402
from faults_common import Check, Part, Report, UnavailableError, run_trials  # noqa: E402

PARTS = ("crash", "disk", "hostile", "concurrency", "processes")


def main() -> int:
    options = parse()
    parts = {name: importlib.import_module(f"faults_{name}").PART for name in options.parts}
    folder: Path | None = options.folder
    try:
        folder = folder or private_folder(options.as_user)
        os.chdir(folder)
        checks = [make_check(name, parts[name], folder, options) for name in options.parts]
        if not options.prepared:
            start_prepared([(parts[check.part], check) for check in checks])
        reports = [run_part(parts[check.part], check, options) for check in checks]
    except UnavailableError as error:
        print(f"faults: {error}", file=sys.stderr)
        if folder:
            shutil.rmtree(folder)
        return 2
    show(report.row() for report in reports)
    for report in reports:
        report.show_failures()
    failed = any(report.failed for report in reports)
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


def make_check(name: str, part: Part, folder: Path, options: argparse.Namespace) -> Check:
    """The options of a part. Its folder is inside the common folder."""
    own = folder / name
    own.mkdir(exist_ok=True)
    trials = part.trials if options.trials is None else options.trials
    return Check(name, own, trials, options.seed, options.quick, options.sanitize)


def start_prepared(parts: list[tuple[Part, Check]]) -> None:
    """Start this program again if a part needs environment variables, such as LD_PRELOAD."""
    extra: dict[str, str] = {}
    for part, check in parts:
        extra |= part.environment(check) if part.environment else {}
    if extra:
        folder = str(parts[0][1].folder.parent)
        arguments = [__file__, *sys.argv[1:], "--folder", folder, "--prepared"]
        os.execve(sys.executable, [sys.executable, *arguments], os.environ | extra)


def run_part(part: Part, check: Check, options: argparse.Namespace) -> Report:
    """Run the trials of a part, and print those that fail."""
    check = replace(check, setup=part.prepare(check))
    report = Report(check, repeat_command(check.part, options))
    numbers = options.only or (part.numbers(check) if part.numbers else range(check.trials))
    until = time.monotonic() + 60 * options.minutes
    try:
        for number, found in run_trials(part, check, numbers, options.jobs, until):
            report.add(number, found)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
    return report


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="scripts/faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("parts", choices=PARTS, nargs="+", metavar="PART", help=", ".join(PARTS))
    options.add_argument(
        "--trials", type=int, metavar="N", help="number of trials (default: that of the part)"
    )
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--minutes", type=float, default=1e6, help="start no trial of a part after this time"
    )
    options.add_argument("--jobs", type=int, default=1, help="trials at the same time")
    options.add_argument("--only", type=int, nargs="+", metavar="N", help="only these trials")
    options.add_argument("--as-user", metavar="NAME", help="as root: become this user first")
    options.add_argument("--quick", action="store_true", help="less variety, for the test suite")
    options.add_argument(
        "--sanitize", action="store_true", help="hostile: the engines in C under ASan and UBSan"
    )
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # when it starts again,
    options.add_argument("--prepared", action="store_true", help=argparse.SUPPRESS)  # as does this
    asked = options.parse_args()
    if asked.only and len(asked.parts) > 1:
        options.error("--only needs one part")
    return asked


def private_folder(user: str | None) -> Path:
    """Make the folder for all files. Root becomes an ordinary user here.

    A fault in charlm once removed /etc. So this program must never run as root.
    """
    folder = Path(tempfile.mkdtemp(prefix="charlm-faults-")).resolve()
    if os.geteuid() == 0:
        try:
            if user is None:
                raise UnavailableError(
                    "it damages files on purpose, so it does not run as root; use --as-user "
                    "nobody, or another user who may read this repository"
                )
            become(user, folder)
        except UnavailableError:
            folder.rmdir()
            raise
    return folder


def become(name: str, folder: Path) -> NoReturn:
    """Give up the rights of root for good, and start again as this user, in this folder.

    Raises:
        UnavailableError: there is no such user, or it cannot run Python with torch and charlm.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError as error:
        raise UnavailableError(f"--as-user {name}: no such user") from error
    rights: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(_is_packages, sys.path)])}
    usual = f"/usr/bin/python3.{sys.version_info.minor}"  # if sys.executable is in a folder of root
    for python in (sys.executable, usual):
        command = [python, "-c", "import torch, charlm.cli"]
        with suppress(OSError):
            if subprocess.run(command, cwd="/", env=env, capture_output=True, **rights).returncode:
                continue
            os.chown(folder, user.pw_uid, user.pw_gid)
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            arguments = [python, __file__, *sys.argv[1:], "--folder", str(folder)]
            os.execve(python, arguments, env)
    raise UnavailableError(f"--as-user {name}: this user cannot run Python with torch and charlm")


def _is_packages(path: str) -> bool:
    return path.endswith("site-packages")


def repeat_command(part: str, options: argparse.Namespace) -> str:
    """The command that repeats a trial, apart from --only."""
    words = ["scripts/faults", part, "--seed", options.seed]
    for name in ("trials", "as_user"):
        if getattr(options, name) is not None:
            words += [f"--{name.replace('_', '-')}", getattr(options, name)]
    words += [f"--{name}" for name in ("quick", "sanitize") if getattr(options, name)]
    return shlex.join(map(str, words))


if __name__ == "__main__":
    sys.exit(main())
