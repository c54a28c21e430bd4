"""Runs functions in several processes that torch.distributed connects, as torchrun does."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charlm.__main__ import end_at_once
from charlm.config import Config
from charlm.launch import joined
from charlm.processes import Processes
from charlm.training.together import follow, lead
from tests.training.helpers import PATIENCE_S, resume, start, train
from tests.warm import start as start_process

Job = tuple[list[Config], str, int | None]
"""Runs, the folder for their folders, and the step to stop at."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def in_processes(n: int, call: Callable[..., None], *arguments: Any) -> None:
    """Call a function of a module in n processes, with their Processes and the arguments."""
    if n == 1:
        call(Processes(), *arguments)
        return
    port = free_port()
    children = [start_process(_enter, rank, n, port, call, arguments) for rank in range(n)]
    try:
        for child in children:
            child.join(PATIENCE_S)
        assert [child.exitcode for child in children] == [0] * n
    finally:
        for child in children:
            child.kill()


def _enter(
    rank: int, n: int, port: int, call: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    with joined(PATIENCE_S) as processes:
        call(processes, *arguments)
    end_at_once(0)


def train_runs(processes: Processes, jobs: list[Job], out: Path) -> None:
    """Train the runs of each job in out / folder / config.name; resume those that exist."""
    for configs, name, stop_at in jobs:
        for config in configs:
            folder = out / name / config.name
            if processes.is_first:
                exists = folder.exists()
                ready = resume(config, folder) if exists else start(config, folder.parent)
                lead(ready, processes)
            else:
                ready = follow(processes)
            train(ready, stop_at)
