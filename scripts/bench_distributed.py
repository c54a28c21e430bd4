#!/usr/bin/env python3
"""How fast several processes train together, beside one process, on this machine.

    scripts/bench distributed [--processes 2 ...] [--repeats 5] [--json] [NAME ...]

Each config's step is timed in one process with one thread, in one process with as many threads as
there are processes, and in the processes with one thread each. Only one of them works at a time.
Ratios are the time of the single process over that of the processes. MESSAGES and MB are those
that a process takes part in per step, counted, beside those that follow from the numbers of
weights. The vocabulary has 65 characters.
With --messages, the times of messages alone are printed, which docs/scaling.md is calculated from.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from comparing import Comparison, report, show

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NAMES = ("quickstart", "shakespeare-lstm", "shakespeare-gpt")
V = 65
SECONDS = 1.0  # of steps that a repeat has, about
SIZES = (8, 1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 24)  # bytes of a message


class Team:
    """Processes that train one config together, and wait while others do.

    Args:
        name: of the config.
        n: the number of processes.
        threads: of each.
    """

    def __init__(self, name: str, n: int, threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": f"{n}", "LOCAL_WORLD_SIZE": f"{n}", "MASTER_ADDR": "localhost"}
        shared |= {"MASTER_PORT": f"{port}", "OMP_NUM_THREADS": f"{threads}"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | shared | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"},
            )
            for rank in range(n)
        ]
        self.facts = self._read()[0]

    def ask(self, what: str, number: int, times: int) -> list[dict[str, Any]]:
        """Let all processes do something; return what each says about it."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{what} {number} {times}\n")
            process.stdin.flush()
        return self._read()

    def seconds(self, what: str, number: int, times: int) -> float:
        """How long it takes the slowest."""
        return max(it["seconds"] for it in self.ask(what, number, times))

    def end(self) -> None:
        for process in self._processes:
            process.communicate()

    def _read(self) -> list[dict[str, Any]]:
        lines = [process.stdout.readline() for process in self._processes if process.stdout]
        return [json.loads(line) for line in lines]


# --- one of the processes ------------------------------------------------------------------------


def work(name: str) -> None:
    """Do what the lines of standard input say, as one of the processes."""
    import torch

    from charlm.config.files import load_config
    from charlm.models import build_model
    from charlm.processes import joined
    from charlm.training.choose import choose_compute
    from charlm.training.step import Stepper

    config = load_config(CONFIGS / f"{name}.yaml")
    with joined() as processes:
        train = config.train.model_copy(update={"threads": int(os.environ["OMP_NUM_THREADS"])})
        model = build_model(config.model, V, seed=1)
        compute = choose_compute(train, model, "cpu")
        carries = model.context is None
        stepper = Stepper(model, train, compute, carries, processes)
        x, y = torch.randint(V, (2, train.batch_size // processes.size, train.seq_len))
        n_targets = train.batch_size * train.seq_len
        stepper.step(x, y, 1.0, n_targets)
        parameters = model.count_parameters()
        of_muon = sum(it.numel() for it in model.hidden_matrices())
        print(json.dumps({"how": compute.kernel, "all": parameters, "muon": of_muon}), flush=True)
        buffer = torch.empty(max(SIZES) // 4)
        for line in sys.stdin:
            what, number, times = line.split()
            before = processes.messages, processes.bytes
            processes.sum(0.0)  # all begin together
            started = time.perf_counter()
            for _ in range(int(times)):
                if what == "step":
                    stepper.step(x, y, 1.0, n_targets)
                else:
                    processes.add(buffer[: int(number) // 4])
            seconds = time.perf_counter() - started
            messages, size = (
                (after - it) / int(times)
                for after, it in zip(
                    (processes.messages - 1, processes.bytes - 8), before, strict=True
                )
            )
            print(json.dumps({"seconds": seconds, "messages": messages, "bytes": size}), flush=True)


# --- comparing -----------------------------------------------------------------------------------


def compare(name: str, n: int, repeats: int) -> tuple[list[Comparison], dict[str, object]]:
    """The ratios of a config, and the row of its messages."""
    teams = {"one": Team(name, 1, 1), "threads": Team(name, 1, n), "processes": Team(name, n, 1)}
    times = max(1, round(SECONDS / teams["one"].seconds("step", 0, 1)))
    found: dict[str, list[float]] = {team: [] for team in teams}
    for _ in range(repeats):
        for team in teams:
            found[team].append(teams[team].seconds("step", 0, times))
    said = teams["processes"].ask("step", 0, 1)[0]
    facts = teams["processes"].facts
    for team in teams.values():
        team.end()
    results = [
        Comparison(
            f"{name}: {n} processes of 1 thread, {title}",
            found["processes"],
            found[team],
            times,
            "steps",
        )
        for team, title in (("one", "1 of 1 thread"), ("threads", f"1 of {n} threads"))
    ]
    # the gradients and the loss, and the matrices that Muon's owners send, in float32
    expected = 4 * (facts["all"] + 1 + facts["muon"])
    return results, {
        "config": name,
        "kernel": facts["how"],
        "ms a step": " ".join(
            f"{team} {1e3 * statistics.median(it) / times:.1f}" for team, it in found.items()
        ),
        "messages": f"{said['messages']:.0f}",
        "MB": f"{said['bytes'] / 1e6:.3f}",
        "MB calculated": f"{expected / 1e6:.3f}",
    }


def messages(n: int, repeats: int) -> list[dict[str, object]]:
    """The times of adding up messages of several sizes, in n processes."""
    team = Team("quickstart", n, 1)
    rows: list[dict[str, object]] = []
    for size in SIZES:
        times = max(3, min(300, (1 << 24) // size))
        seconds = [team.seconds("add", size, times) / times for _ in range(repeats)]
        rows.append(
            {"processes": n, "bytes": size, "ms": f"{1e3 * statistics.median(seconds):.3f}"}
        )
    team.end()
    return rows


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name", nargs="*", metavar="NAME", default=NAMES)
    options.add_argument("--processes", type=int, nargs="+", default=[2])
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--messages", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--worker", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.worker:
        work(asked.worker)
        return
    if asked.messages:
        show(row for n in asked.processes for row in messages(n, asked.repeats))
        return
    every = [compare(name, n, asked.repeats) for name in asked.name for n in asked.processes]
    report([it for results, _ in every for it in results], asked.json)
    if not asked.json:
        show(row for _, row in every)


if __name__ == "__main__":
    main()
