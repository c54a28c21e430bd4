"""Processes of one machine add up and exchange tensors in memory that they share, or by gloo."""

from __future__ import annotations

import os
import resource
from functools import reduce
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from charlm import shared
from charlm.processes import Processes
from tests.training.helpers import PATIENCE_S
from tests.training.several import in_processes

TYPES = (torch.float32, torch.float64, torch.int64, torch.uint8)
SHAPES = ((), (0,), (7,), (3, 5), (600, 2), (40, 100), (1,))


def draw(rng: np.random.Generator) -> list[Tensor]:
    """Tensors of one type, some larger than a part of the memory."""
    shapes = [SHAPES[i] for i in rng.integers(len(SHAPES), size=rng.integers(1, 6))]
    dtype = TYPES[rng.integers(len(TYPES))]
    return [torch.as_tensor(rng.uniform(0, 99, shape)).to(dtype) for shape in shapes]


def compare(processes: Processes) -> None:
    """Add up and exchange random tensors. All processes draw those of all."""
    shared.PART = 1 << 12
    processes.share_memory(PATIENCE_S)
    memory = processes._memory
    assert memory
    for trial in range(40):
        processes._memory = memory if trial % 4 else None  # None: gloo
        each = []
        for rank in range(processes.size):
            rng = np.random.default_rng(trial)  # the same types and shapes
            each.append([it * (rank + 1) + rank for it in draw(rng)])
        added = [it.clone() for it in each[processes.rank]]
        before = processes.messages, processes.bytes
        processes.add(added)
        size = sum(it.numel() * it.element_size() for it in added)
        assert (processes.messages - before[0], processes.bytes - before[1]) == (1, size)
        for found, *terms in zip(added, *each, strict=True):
            expected = reduce(np.add, (it.numpy() for it in terms))  # in the order of ranks
            if processes._memory:
                assert np.array_equal(found.numpy(), expected)
            else:
                assert np.allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)

        owned = [draw(rng) if rng.random() < 0.7 else [] for _ in range(processes.size)]
        owned = owned[: rng.integers(1, processes.size + 1)]
        exchanged = [
            [it.clone() if rank == processes.rank else torch.zeros_like(it) for it in share]
            for rank, share in enumerate(owned)
        ]
        processes.exchange(exchanged)
        for found, expected in zip(chain(*exchanged), chain(*owned), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("n", [2, 3])
def test_tensors_are_added_up_in_the_order_of_processes_and_exchanged(n: int) -> None:
    in_processes(n, compare)


def without_memory(processes: Processes) -> None:
    """The memory is refused to the first process, to another one, and to those of another user."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if processes.is_first:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    processes.share_memory(PATIENCE_S)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert processes._memory is None
    assert processes.sum(1.0, processes.rank) == [2.0, 1.0]

    limits = resource.getrlimit(resource.RLIMIT_AS)
    if not processes.is_first:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + shared.PART, limits[1]))
    processes.share_memory(PATIENCE_S)
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert processes._memory is None
    assert processes.sum(1.0, processes.rank) == [2.0, 1.0]

    if processes.is_first:
        os.getuid = lambda: -1
    processes.share_memory(PATIENCE_S)
    assert processes._memory is None
    assert processes.sum(1.0, processes.rank) == [2.0, 1.0]


def test_without_the_memory_gloo_sends_all() -> None:
    in_processes(2, without_memory)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the open files are listed there")
def test_memory_that_is_refused_leaves_no_open_file() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert shared.share_memory(0, 2, 1.0, lambda _: "", lambda _: True) is None
    assert shared.share_memory(0, 2, 1.0, lambda name: name, lambda _: False) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
