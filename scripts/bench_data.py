#!/usr/bin/env python3
"""How fast a text is encoded, how much memory that takes, and how soon training can start.

    scripts/bench_data.py [--megabytes 1000] [--repeats 3] [FILE ...]

Makes an ASCII and a multi-byte text of the given size, and smaller ones, and measures them and the
files that are named. Encoding is compared with reading and with `wc -m`, in turn, in one thread.
Speeds count the file's bytes and are medians of the repeats. Memory is the peak of a process that
has imported torch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKER = """
import json, sys, time
import torch
from charlm.config.files import parse_config
from charlm.data.corpus import open_corpus
from charlm.data.batches import make_batches
from charlm.models import build_model
from charlm.training.choose import choose_compute
from charlm.training.step import Stepper

def memory(key):  # MB
    return next(int(line.split()[1]) / 1000 for line in open("/proc/self/status") if key in line)

torch.set_num_threads(1)
started = time.perf_counter()
settings = {"name": "bench", "data": {"path": sys.argv[1]}, "model": {"hidden_size": 128}}
config = parse_config(settings, ["train.threads=1", "train.max_steps=1000000"])
corpus = open_corpus(config.data)
opened = time.perf_counter()
encoded = memory("VmHWM")
model = build_model(config.model, len(corpus.vocab), seed=1)
compute = choose_compute(config.train, model, "cpu")
stepper = Stepper(model, config.train, compute, carries_state=True)
batches = make_batches(corpus.split("train"), config.train, compute.device)
stepper.step(*batches.batch(0), 1.0)
first = time.perf_counter()
for step in range(1, 101):
    stepper.step(*batches.batch(step), 1.0)
done = time.perf_counter()
print(json.dumps({
    "distinct": corpus.n_distinct, "open": opened - started, "first_step": first - started,
    "step": (done - first) / 100, "peak": encoded,
}))
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--megabytes", type=int, default=1000)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("files", nargs="*", type=Path)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        sizes = [1, max(1, asked.megabytes // 10), asked.megabytes]
        made = [make(folder, kind, size) for kind in ("ascii", "multibyte") for size in sizes]
        print(
            "| text | MB | encode MB/s | of cat | of wc -m | peak MB | open s | first step s | "
            "step ms | step, cached ms |\n|---|---|---|---|---|---|---|---|---|---|"
        )
        for path in [*made, *asked.files]:
            print(measure(path, folder / "cache", asked.repeats), flush=True)


def make(folder: Path, kind: str, megabytes: int) -> Path:
    """A text of random words, in Latin letters or in many scripts."""
    random.seed(1)
    ranges = (
        [(97, 122)]
        if kind == "ascii"
        else [(0x430, 0x44F), (0x3B1, 0x3C9), (0x4E00, 0x4FFF), (0x1F600, 0x1F640), (97, 122)]
    )
    words = []
    for _ in range(20_000):
        low, high = random.choice(ranges)
        words.append("".join(chr(random.randint(low, high)) for _ in range(random.randint(2, 9))))
    stretch = "".join(random.choice(words) + random.choice("     .\n") for _ in range(500_000))
    raw = stretch.encode()
    path = folder / f"{kind}-{megabytes}"
    with path.open("wb") as file:
        left = megabytes * 1_000_000
        while left > 0:
            left -= file.write(raw[:left] if kind == "ascii" else cut(raw, left))
    return path


def cut(raw: bytes, size: int) -> bytes:
    """The first `size` bytes, cut at a whole character and padded with blanks."""
    piece = raw[:size].decode(errors="ignore").encode()
    return piece.ljust(min(size, len(raw)))


def measure(path: Path, cache: Path, repeats: int) -> str:
    """A row of the table."""
    megabytes = path.stat().st_size / 1e6
    cat, wc, cold, warm = [], [], [], []
    time.sleep(0.2)  # files just written are read twice, to be sure
    for _ in range(repeats):
        subprocess.run(["rm", "-rf", cache], check=True)
        cat.append(seconds("cat", path))
        wc.append(seconds("wc", "-m", path))
        cold.append(worker(path, cache))
        warm.append(worker(path, cache))
    middle = {key: statistics.median(run[key] for run in cold) for key in cold[0]}
    again = {key: statistics.median(run[key] for run in warm) for key in warm[0]}
    speed = megabytes / middle["open"]
    return (
        f"| {path.name} ({middle['distinct']:.0f} distinct) | {megabytes:,.0f} | {speed:,.0f} | "
        f"{statistics.median(cat) / middle['open']:.2f} | "
        f"{statistics.median(wc) / middle['open']:.2f} | {middle['peak']:,.0f} | "
        f"{again['open']:.3f} | {again['first_step']:.2f} | {1e3 * middle['step']:.1f} | "
        f"{1e3 * again['step']:.1f} |"
    )


def seconds(*command: str | Path) -> float:
    started = time.perf_counter()
    subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"LC_ALL": "C.UTF-8"}
    )
    return time.perf_counter() - started


def worker(path: Path, cache: Path) -> dict[str, float]:
    env = os.environ | {"CHARLM_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", WORKER, str(path)], check=True, env=env, stdout=subprocess.PIPE
    )
    result: dict[str, float] = json.loads(ended.stdout)
    return result


if __name__ == "__main__":
    main()
