#!/usr/bin/env python3
"""How fast several processes train together, beside one process, on this machine.

    scripts/bench distributed [--processes 2 ...] [--set KEY=VALUE] [--repeats 5] [NAME ...]

Each config's step is timed in one process of one thread, in one process with a thread for each core
that the processes use, and in the processes, which have one thread each. They work in turn. A ratio
is the time of the single process over that of the processes. MESSAGES and MB are those that a
process takes part in per step: counted, and calculated from the sizes of the weights (all gradients
and the loss, and then Muon's matrices). The vocabulary has 65 characters.
With --messages, the times of messages alone are printed, for scripts/scaling.py. `scripts/as_cpu
avx2 scripts/bench distributed` is an older CPU.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comparing import Comparison, report

from charlm.config import Config
from charlm.config.files import load_config
from charlm.errors import ConfigError
from charlm.machine import usable_cpus

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NAMES = ("quickstart", "shakespeare-lstm", "shakespeare-gpt")
V = 65
Row = dict[str, object]
SIZES = (8, 1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 24)  # bytes of a message


def configured(name: str, settings: Sequence[str]) -> Config:
    """The config of this name, with other settings KEY=VALUE."""
    try:
        return load_config(CONFIGS / f"{name}.yaml", settings)
    except ConfigError as error:
        sys.exit(f"bench distributed: {error}")


class Team:
    """Processes that train one config together, and wait while others do.

    Args:
        name: of the config.
        n: the number of processes.
        threads: of each.
        settings: KEY=VALUE, instead of the config's.
    """

    def __init__(self, name: str, n: int, threads: int, settings: Sequence[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": f"{n}", "LOCAL_WORLD_SIZE": f"{n}", "MASTER_ADDR": "localhost"}
        settings = [f"--set={it}" for it in (*settings, f"train.threads={threads}")]
        shared |= {"MASTER_PORT": f"{port}", "OMP_NUM_THREADS": f"{threads}"}
        self._processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", name, *settings],
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
        return max(float(it["seconds"]) for it in self.ask(what, number, times))

    def end(self) -> None:
        for process in self._processes:
            process.communicate()

    def _read(self) -> list[dict[str, Any]]:
        lines = [process.stdout.readline() for process in self._processes if process.stdout]
        if not all(lines):
            sys.exit("bench distributed: a process ended; its error is above")
        return [json.loads(line) for line in lines]


# --- one of the processes ------------------------------------------------------------------------


def work(name: str, settings: Sequence[str]) -> None:
    """Do what the lines of standard input say, as one of the processes."""
    import torch

    from charlm.launch import joined
    from charlm.models import build_model
    from charlm.training.choose import choose_compute
    from charlm.training.step import Stepper

    config = configured(name, settings)
    train = config.train
    B, T = train.batch_size, train.seq_len
    with joined() as processes:
        model = build_model(config.model, V, seed=1)
        compute = choose_compute(train, model, "cpu")
        stepper = Stepper(model, train, compute, model.context is None, processes)
        x, y = torch.randint(V, (2, B // processes.size, T))
        matrices = model.hidden_matrices() if train.optimizer.kind == "muon" else []
        buffer = torch.empty(max(SIZES) // 4)
        does: dict[str, Callable[[int], object]] = {
            "step": lambda _: stepper.step(x, y, 1.0, B * T),
            "all-reduce": lambda size: processes.add([buffer[: size // 4]]),
            "exchange": lambda size: processes.exchange(
                [[it] for it in buffer[: size // 4].chunk(processes.size)]
            ),
        }
        does["step"](0)  # the first takes longer
        facts = {
            "kernel": compute.kernel,
            "messages": 1 + min(processes.size, len(matrices)),
            "bytes": 4 * (model.count_parameters() + 1 + sum(it.numel() for it in matrices)),
        }
        print(json.dumps(facts), flush=True)
        for line in sys.stdin:
            what, size, times = line.split()
            processes.sum(0.0)  # all begin together
            before = processes.messages, processes.bytes
            started = time.perf_counter()
            for _ in range(int(times)):
                does[what](int(size))
            seconds = time.perf_counter() - started
            answer = {
                "seconds": seconds,
                "messages": (processes.messages - before[0]) / int(times),
                "bytes": (processes.bytes - before[1]) / int(times),
            }
            print(json.dumps(answer), flush=True)


# --- comparing -----------------------------------------------------------------------------------


def compare(name: str, n: int, asked: argparse.Namespace) -> tuple[list[Comparison], Row]:
    """The ratios of a config, and the row of its messages."""
    if (B := configured(name, asked.set).train.batch_size) % n:
        sys.exit(f"bench distributed: a batch of {B} cannot be shared out among {n}")
    threads = min(n, usable_cpus())
    titles = {"one": "1 thread", "threads": f"{threads} threads", "processes": f"{n} processes"}
    shapes = {"one": (1, 1), "threads": (1, threads), "processes": (n, 1)}
    teams = {title: Team(name, *shape, asked.set) for title, shape in shapes.items()}
    times = max(1, round(asked.seconds / teams["one"].seconds("step", 0, 1)))
    found: dict[str, list[float]] = {team: [] for team in teams}
    for _ in range(asked.repeats):
        for team, seconds in found.items():
            seconds.append(teams[team].seconds("step", 0, times))
    said = teams["processes"].ask("step", 0, 1)[0]
    calculated = teams["processes"].facts
    for it in teams.values():
        it.end()
    results = [
        Comparison(
            f"{name}: {titles['processes']}, 1 of {titles[team]}",
            found["processes"],
            found[team],
            times,
            "steps",
        )
        for team in ("one", "threads")
    ]
    medians = {
        f"ms, {titles[team]}" if team != "processes" else "ms, processes": (
            f"{1e3 * statistics.median(it) / times:.1f}"
        )
        for team, it in found.items()
    }
    counts = {
        "messages": f"{said['messages']:.0f}",
        "calculated": calculated["messages"],
        "MB": f"{said['bytes'] / 1e6:.3f}",
        "MB calculated": f"{calculated['bytes'] / 1e6:.3f}",
    }
    return results, {"config": name, "processes": n, "kernel": calculated["kernel"]} | (
        medians | counts
    )


def messages(n: int, repeats: int) -> list[Row]:
    """The times of messages alone, of several sizes, in n processes."""
    team = Team("quickstart", n, 1, [f"train.batch_size={4 * n}"])
    rows: list[Row] = []
    for size in SIZES:
        times = max(3, min(100, (1 << 24) // size))
        row: Row = {"processes": n, "bytes": size}
        for what in ("all-reduce", "exchange"):
            seconds = [team.seconds(what, size, times) / times for _ in range(repeats)]
            row[f"{what}, ms"] = f"{1e3 * statistics.median(seconds):.3f}"
        rows.append(row)
    team.end()
    return rows


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("name", nargs="*", metavar="NAME", default=NAMES)
    options.add_argument("--processes", type=int, nargs="+", default=[2])
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--seconds", type=float, default=1.0, help="of each repeat, about")
    options.add_argument("--messages", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--worker", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.worker:
        work(asked.worker, asked.set)
    elif asked.messages:
        rows = [row for n in asked.processes for row in messages(n, asked.repeats)]
        report([], asked.json, rows)
    else:
        every = [compare(name, n, asked) for name in asked.name for n in asked.processes]
        results = [it for each, _ in every for it in each]
        report(results, asked.json, [row for _, row in every])


if __name__ == "__main__":
    main()
