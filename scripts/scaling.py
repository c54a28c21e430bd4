#!/usr/bin/env python3
"""Prints the tables of docs/scaling.md, which explains them: how long a step of n processes takes.

    .venv/bin/python scripts/scaling.py

The first tables compare a cost model with steps measured on one machine. The last one says what the
model gives for machines that we do not have. Its figures are published or assumed; see the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from comparing import show

from charlm.config import GPTConfig, RecurrentConfig
from charlm.config.files import load_config
from charlm.config.shapes import weight_shapes

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
V = 65

# --- this machine --------------------------------------------------------------------------------

CORES = 2
# scripts/bench_distributed.py --processes 2 4 --messages: bytes, then ms of all-reduce and exchange
MESSAGES = {
    2: [
        (1 << 12, 0.273, 0.150),
        (1 << 16, 0.264, 0.160),
        (1 << 20, 0.710, 0.375),
        (1 << 22, 1.524, 0.753),
        (1 << 24, 5.211, 1.903),
    ],
    4: [
        (1 << 12, 0.560, 0.482),
        (1 << 16, 0.643, 0.481),
        (1 << 20, 1.725, 0.928),
        (1 << 22, 3.245, 1.815),
        (1 << 24, 15.582, 6.344),
    ],
}
# as_cpu avx2 scripts/bench_distributed.py --processes 2 4 --set train.batch_size=24: ms of a step
# by the number of processes, and the bytes of its all-reduce and of its exchange
STEPS = {
    "shakespeare-lstm": ({1: 224.6, 2: 135.2, 4: 170.5}, 8.671e6, 8.389e6),
    "shakespeare-gpt": ({1: 238.5, 2: 123.6, 4: 141.0}, 3.217e6, 3.146e6),
}
LATER = {"shakespeare-lstm": 166.8, "shakespeare-gpt": 139.7}  # 3 processes, after the prediction


def crowding(n: int) -> float:
    """How many processes share a core."""
    return max(1.0, n / CORES)


def message_terms(n: int, summed: float = 0, exchanged: float = 0) -> tuple[float, float]:
    """The factors of the time of a wait and of the time of a byte, for messages of n processes.

    The processes share memory. An all-reduce of `summed` bytes has two waits. A process copies them
    in and the sum out, and a copy reads and writes: 4. It adds n - 1 numbers to each of its share,
    1 / n of all, and an addition reads two numbers and writes one: 3 (n - 1) / n. An exchange of
    `exchanged` bytes has one wait. A process copies its share in and that of the others out: 2.
    """
    moved = (4 + 3 * (n - 1) / n) * summed + 2 * exchanged
    waits = 2 * (summed > 0) + (exchanged > 0)
    return waits * crowding(n), moved * crowding(n)


def least_squares(terms: list[tuple[float, float]], values: list[float]) -> tuple[float, float]:
    """The two factors of the terms whose sums are next to the values, by relative error."""
    scaled = np.array(terms) / np.array(values)[:, None]
    first, second = np.linalg.lstsq(scaled, np.ones(len(values)), rcond=None)[0]
    return float(first), float(second)


def fit_messages() -> tuple[float, float]:
    """The time of a wait, ms, and that of a byte, ms."""
    terms, values = [], []
    for n, rows in MESSAGES.items():
        for size, all_reduce, exchange in rows:
            terms += [message_terms(n, summed=size), message_terms(n, exchanged=size)]
            values += [all_reduce, exchange]
    return least_squares(terms, values)


def here(name: str) -> Callable[[int], dict[str, float]]:
    """The model of a config's step on this machine: the parts, ms, by the number of processes."""
    wait, per_byte = fit_messages()
    steps, summed, exchanged = STEPS[name]

    def messages(n: int) -> float:
        waits, moved = message_terms(n, summed, exchanged) if n > 1 else (0.0, 0.0)
        return waits * wait + moved * per_byte

    terms = [(1 / min(n, CORES), crowding(n)) for n in steps]
    shared, repeated = least_squares(terms, [ms - messages(n) for n, ms in steps.items()])
    return lambda n: {
        "shared": shared / min(n, CORES),
        "repeated": repeated * crowding(n),
        "messages": messages(n),
    }


def rows_here() -> list[dict[str, object]]:
    """Steps on this machine, by the model and measured."""
    rows: list[dict[str, object]] = []
    for name, (steps, *_) in STEPS.items():
        model = here(name)
        row: dict[str, object]
        for n, measured in [*steps.items(), (3, LATER[name])]:
            parts = model(n)
            total = sum(parts.values())
            row = {"config": name, "processes": f"{n} (predicted)" if n == 3 else n}
            row |= {f"{part}, ms": f"{ms:.0f}" for part, ms in parts.items()}
            row |= {"sum, ms": f"{total:.0f}", "measured, ms": f"{measured:.0f}"}
            rows.append(row | {"sum / measured": f"{total / measured:.2f}"})
    return rows


# --- other machines ------------------------------------------------------------------------------

LAUNCH_S = 8.4e-6  # of a message: NCCL's own table
BUCKET = 25e6  # bytes; DistributedDataParallel's default
BACKWARD = 2 / 3  # of the time of forward and backward pass
MEMORY = 1.5e12  # bytes/s
KERNEL_S = 5e-6  # to start one
SMALL, LARGE = 32e12, 91e12  # flop/s of an A100 in small and in larger models
NOT_HIDDEN = ("embed", "head", "position")  # the other matrices are Muon's


@dataclass(frozen=True)
class Network:
    """
    Attributes:
        n: the number of GPUs that it connects.
        hop_s: the time until a message is with the next GPU.
        bandwidth: bytes/s in each direction.
        has_tree: whether NCCL may use a tree.
    """

    name: str
    n: int
    hop_s: float
    bandwidth: float
    has_tree: bool = True

    def all_reduce(self, n: int, size: float) -> float:
        """Seconds: a ring, or a tree where that is faster."""
        ring = 2 * (n - 1) * self.hop_s + 2 * (n - 1) / n * size / self.bandwidth
        tree = 2 * math.log2(n) * self.hop_s + 2 * size / (0.9 * self.bandwidth)
        return LAUNCH_S + (min(ring, tree) if self.has_tree else ring)

    def broadcasts(self, n: int, size: float, senders: int) -> float:
        """Seconds: the senders' shares go round the ring, one after another."""
        return senders * (LAUNCH_S + n * self.hop_s) + size / self.bandwidth


NETWORKS = (
    Network("NVLink", 8, 3.4e-6, 235e9, has_tree=False),
    Network("PCIe", 8, 5.7e-6, 24e9, has_tree=False),
    Network("100 Gbit/s", 64, 30e-6, 0.9 * 12.5e9),
    Network("25 Gbit/s", 64, 30e-6, 0.9 * 3.125e9),
)


@dataclass(frozen=True)
class Work:
    """A step of a model on GPUs.

    Attributes:
        flops: of the forward and backward pass.
        rate: at which a GPU computes them, 1/s.
        least_s: the least time of a forward and backward pass, for a batch of any size.
        weights: their number.
        matrices: the shapes of those that Muon updates.
    """

    name: str
    flops: float
    rate: float
    least_s: float
    weights: int
    matrices: tuple[tuple[int, ...], ...]

    def step(self, n: int, network: Network, batches: float = 1) -> dict[str, float]:
        """The parts of a step of n GPUs, s. The whole batch is `batches` times the usual one."""
        sharers = min(n, len(self.matrices))
        passes = max(batches * self.flops / self.rate / n, self.least_s)
        muon = sum(map(orthogonal_flops, self.matrices)) / self.rate / max(1, sharers)
        computing = passes + muon + 28 * self.weights / MEMORY  # AdamW reads 4 and writes 3 numbers
        if n == 1:
            return {"computing": computing}
        gradients, reduce = 4 * self.weights, partial(network.all_reduce, n)
        hidden = BACKWARD * passes if gradients > BUCKET else 0  # behind the backward pass
        size = 4 * sum(map(math.prod, self.matrices))
        return {
            "computing": computing,
            "all-reduce": max(reduce(min(gradients, BUCKET)), reduce(gradients) - hidden),
            "broadcasts": network.broadcasts(n, size, sharers),
        }

    def total(self, n: int, network: Network, batches: float = 1) -> float:
        """Seconds of the whole step."""
        return sum(self.step(n, network, batches).values())

    def pays_until(self, network: Network) -> int:
        """The last doubling of the GPUs that makes steps at least 1.4 times as fast."""
        n = 1
        while n < network.n and self.total(n, network) >= 1.4 * self.total(2 * n, network):
            n *= 2
        return n

    def batches_for(self, share: float, network: Network) -> int:
        """How many times the batch all GPUs need to reach a share of their number in speed."""
        k = 1
        while self.total(1, network, k) < share * network.n * self.total(network.n, network, k):
            k *= 2
        return k


def orthogonal_flops(shape: tuple[int, ...]) -> float:
    """Muon's 5 iterations on a matrix: X X^T, its square, and the product with X."""
    m, n = min(shape), max(shape)
    return 5 * (4 * m * m * n + 2 * m**3)


def work(
    name: str, config: RecurrentConfig | GPTConfig, rate: float, B: int, T: int, muon: bool
) -> Work:
    """The work of a batch of B sequences of T characters."""
    shapes = dict(weight_shapes(config, V))
    hidden = tuple(
        it for key, it in shapes.items() if len(it) == 2 and not key.startswith(NOT_HIDDEN)
    )
    used = sum(map(math.prod, hidden)) + V * config.width  # in products: these, and the head
    flops, launches = 6 * used, 2 * T * 3
    if isinstance(config, GPTConfig):
        flops += 12 * config.n_layer * config.n_embd * T  # attention
        launches = 75 * config.n_layer
    weights = sum(map(math.prod, shapes.values()))
    least_s = KERNEL_S * launches
    return Work(name, flops * B * T, rate, least_s, weights, hidden if muon else ())


def works() -> list[Work]:
    """The three models."""
    lstm, gpt = (load_config(CONFIGS / f"{it}.yaml") for it in ("shakespeare-lstm", "nanogpt"))
    large = GPTConfig(n_layer=14, n_head=12, n_embd=768, context=512)
    train = lstm.train
    return [
        work("LSTM 1x512", lstm.model, SMALL, train.batch_size, train.seq_len, muon=True),
        work("GPT 6x384", gpt.model, SMALL, gpt.train.batch_size, 256, muon=False),
        work("GPT 14x768", large, LARGE, 64, 512, muon=True),
    ]


def row_there(work: Work, network: Network) -> dict[str, object]:
    """A row of the table of other machines."""
    n, one = network.n, work.total(1, network)
    parts = work.step(n, network)
    return {
        "model": work.name,
        "GPUs": f"{n}, {network.name}",
        "1 GPU, ms": f"{1e3 * one:.1f}",
        **{f"{part}, ms": f"{1e3 * seconds:.1f}" for part, seconds in parts.items()},
        "speed-up": f"{one / sum(parts.values()):.1f}",
        "without messages": f"{one / parts['computing']:.1f}",
        "pays until": work.pays_until(network),
        "batch for 70 %": f"x {work.batches_for(0.7, network)}",
    }


def main() -> None:
    wait, per_byte = fit_messages()
    print(f"a wait takes {wait:.2f} ms, and a process moves {1e-6 / per_byte:.1f} GB/s")
    show(rows_here())
    show(
        {
            "model": it.name,
            "weights, M": f"{it.weights / 1e6:.1f}",
            "flop of a step": f"{it.flops:.1e}",
            "least passes, ms": f"{1e3 * it.least_s:.1f}",
            "Muon's matrices": len(it.matrices),
        }
        for it in works()
    )
    show(row_there(it, network) for it in works() for network in NETWORKS)


if __name__ == "__main__":
    main()
