#!/usr/bin/env python3
"""Checks charlm on a GPU: is it exact, is it fast, how soon does it reach a loss? One table.

    scripts/gpu_check [--data FILE] [--nanogpt DIR] [--minutes 10] [--json FILE]

It needs a CUDA GPU and charlm's packages. It needs no network, and charlm need not be installed.
FILE is tinyshakespeare, the text of the required losses. DIR is a checkout of nanoGPT, whose own
train.py runs in a copy, for comparison. Each part runs in its own process and has a share of the
minutes. A part that takes longer is ended, and the table says so. The status is 1 if any
requirement is missed.

    scripts/gpu_check --device cpu --quick    # the same on tiny models: only whether it all runs
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    "torch",
    "numpy",
    "pydantic",
    "yaml",
    "safetensors",
    "platformdirs",
    "tensorboard",
    "tqdm",
)
GRACE_S = 8  # after its deadline, a part is killed
TEXT_FOLDERS = ("shared/corpora", "../shared/corpora", "data")  # where the text may lie


def main() -> None:
    asked = parse()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        sys.exit(
            f"gpu_check: {sys.executable} lacks {', '.join(missing)}; install them, or name a "
            "folder that has them in PYTHONPATH"
        )
    sys.path.insert(0, str(ROOT))
    import torch

    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("gpu_check: PyTorch finds no CUDA GPU; --device cpu --quick tries it without")
    if asked.part:
        return run_part(asked)
    rows: list[dict[str, Any]] = []
    began = time.monotonic()
    print(headline(asked.device) + "\n", flush=True)
    for found in all_parts(asked, began):
        show(found, first=not rows)
        rows.append(found)
    missed = [f"{row['part']}, {row['what']}" for row in rows if row["met"] is False]
    text, comparable = read_text(asked)
    if not comparable:
        print(f"\n{text}: not tinyshakespeare, so no losses and times to them are asked for")
    print(f"\n{time.monotonic() - began:.0f} s; missed: {'; '.join(missed) or 'nothing'}")
    if asked.json:
        result = {"machine": headline(asked.device), "text": text, "rows": rows}
        asked.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    sys.exit(1 if missed else 0)


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="scripts/gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--data", type=Path, metavar="FILE", help="the text, tinyshakespeare")
    options.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of nanoGPT")
    options.add_argument("--minutes", type=float, default=10, help="for everything")
    options.add_argument("--device", default="cuda")
    options.add_argument("--quick", action="store_true", help="tiny models and few steps")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    options.add_argument("--part", help=argparse.SUPPRESS)
    options.add_argument("--until", type=float, help=argparse.SUPPRESS)  # as time.time has it
    asked = options.parse_args()
    for path in (asked.data, asked.nanogpt and asked.nanogpt / "train.py"):
        if path and not path.is_file():
            options.error(f"{path}: no such file")
    return asked


# --- parts, each a process --------------------------------------------------------------------


def parts() -> dict[str, tuple[float, list[Any]]]:
    """Each part: its share of the time, and its tasks."""
    import gpu_exact
    import gpu_recipes
    import gpu_speed

    return {
        "exact": (10, gpu_exact.TASKS),
        "speed": (22, gpu_speed.TASKS),
        "nanogpt": (30, [gpu_recipes.OWN]),
        "recipes": (40, gpu_recipes.TASKS),
    }


def all_parts(asked: argparse.Namespace, began: float) -> Iterator[dict[str, Any]]:
    """Yield every row when it is measured; time that a part does not use goes to the others."""
    from gpu_common import Found, row
    from gpu_recipes import BESIDE, beside

    todo = parts()
    end = began + 60 * asked.minutes - 2 * GRACE_S
    values: dict[str, float | None] = {}
    for part, (share, tasks) in list(todo.items()):
        if part == "nanogpt" and asked.nanogpt is None:
            absent = Found("not run: --nanogpt DIR names a checkout of it")
            yield row(part, todo.pop(part)[1][0], absent)
            continue
        seconds = (end - time.monotonic()) * share / sum(it[0] for it in todo.values())
        del todo[part]
        done = 0
        for found in rows_of(part, max(0.0, seconds)):
            values[found["what"]] = found["value"]
            done += 1
            yield found
        for task in tasks[done:]:
            yield row(part, task, Found("cut, or its process died", False))
    yield row("recipes", BESIDE, beside(values, make_check(asked, 0)))


def rows_of(part: str, seconds: float) -> Iterator[dict[str, Any]]:
    """The rows that the process of a part prints before its deadline."""
    from gpu_common import running

    command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
    command += ["--until", str(time.time() + seconds)]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    with running(command, seconds + GRACE_S, leads=True, env=env) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)


def run_part(asked: argparse.Namespace) -> None:
    """Write the rows of a part to standard output, one JSON object a line.

    What compilers and their helpers print, and whether they hold it open, is kept apart from that.
    """
    from gpu_common import run_task

    check = make_check(asked, asked.until - time.time())
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)
        for task in parts()[asked.part][1]:
            print(json.dumps(run_task(asked.part, task, check)), file=output, flush=True)


def make_check(asked: argparse.Namespace, seconds: float) -> Any:
    """The options of a part."""
    from gpu_common import Check

    text, comparable = read_text(asked)
    deadline = time.monotonic() + seconds
    return Check(asked.device, text, comparable, asked.quick, asked.nanogpt, deadline)


def read_text(asked: argparse.Namespace) -> tuple[str, bool]:
    """The text to train on, and whether it is tinyshakespeare."""
    from charlm.data.library import KNOWN, have

    known = KNOWN["tinyshakespeare"]
    paths = [ROOT / folder / known.file for folder in TEXT_FOLDERS]
    found = next((path for path in paths if path.is_file()), have("tinyshakespeare"))
    path = asked.data or found
    if path is None:
        return "builtin:python", False
    return str(path.resolve()), hashlib.sha256(path.read_bytes()).hexdigest() == known.sha256


# --- the table -------------------------------------------------------------------------------


def headline(device: str) -> str:
    """One line with the card and the versions."""
    import torch

    card = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        card = torch.cuda.get_device_name(device)
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        card += f", CUDA {torch.version.cuda}, cuDNN {cudnn}"
    return f"{card}, PyTorch {torch.__version__}, Python {platform.python_version()}"


def show(row: dict[str, Any], first: bool) -> None:
    """Print a row of a Markdown table, and the header before the first."""
    if first:
        print("| part | what | asked | got | met | memory |\n|---|---|---|---|---|---|")
    met = {True: "yes", False: "NO", None: "–"}[row["met"]]
    memory = f"{row['memory_mb']:,} MB" if row["memory_mb"] else "–"
    cells = (row["part"], row["what"], row["asked"], row["got"], met, memory)
    print("| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
