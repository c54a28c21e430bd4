"""Shared by the parts of scripts/gpu_check: options, results, and processes with a deadline."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
TARGET = 1.4697  # nats per character: what nanoGPT publishes for its Shakespeare recipe


@dataclass(frozen=True)
class Check:
    """The options of a part.

    Attributes:
        text: a file, or a built-in text.
        comparable: whether it is the text of the required losses.
        quick: take tiny sizes and few steps. They check only that everything runs.
        deadline: when the part must be over, in the seconds of time.monotonic.
    """

    device: str
    text: str
    comparable: bool
    quick: bool
    nanogpt: Path | None
    deadline: float

    @property
    def is_cuda(self) -> bool:
        return self.device.startswith("cuda")

    def late(self) -> bool:
        """Whether the part's time is over."""
        return time.monotonic() > self.deadline

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Found:
    """The result of a task.

    Attributes:
        met: whether the requirement is met; None if there is none for this run.
        value: the figure that others are compared with, if there is one.
        memory_mb: the most memory of the device it used, if the task knows better than PyTorch.
    """

    got: str
    met: bool | None = None
    value: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True)
class Task:
    """A row of the table: what is measured, the target, and the function that measures it."""

    what: str
    asked: str
    run: Callable[[Check], Found]


def run_task(part: str, task: Task, check: Check) -> dict[str, Any]:
    """Run a task and return its row, also if it fails."""
    if check.is_cuda:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        gc.collect()  # of the task before, which would be counted
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(check.device)
    try:
        found = Found("cut: no time left", False) if check.late() else task.run(check)
    except Exception as error:  # in one row; the others are still useful
        reason = str(error).strip().splitlines() or [""]
        found = Found(f"failed: {type(error).__name__}: {reason[0]:.200}", False)
    memory = found.memory_mb
    if memory is None and check.is_cuda:
        memory = torch.cuda.max_memory_allocated(check.device) / 2**20
    return row(part, task, found, memory)


def row(part: str, task: Task, found: Found, memory_mb: float | None = None) -> dict[str, Any]:
    """The row of a task, to be printed or written as JSON."""
    return {
        "part": part,
        "what": task.what,
        "asked": task.asked,
        "got": found.got,
        "met": found.met,
        "memory_mb": None if memory_mb is None else round(memory_mb),
        "value": found.value,
    }


@contextmanager
def running(
    command: Sequence[str], seconds: float, leads: bool = False, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is read here; killed after `seconds`, or on leaving the context.

    Args:
        leads: whether the processes that it starts are ended with it.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=leads, **options
    )

    def end() -> None:
        with suppress(ProcessLookupError):
            if leads:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

    timer = threading.Timer(max(0.0, seconds), end)
    timer.daemon = True
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        end()
        process.wait()
