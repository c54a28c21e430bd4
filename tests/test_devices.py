"""The number of CPU threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from charlm import devices
from charlm.devices import MAX_THREADS, set_threads
from charlm.errors import DeviceError


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cpus", "most"), [(1, MAX_THREADS), (2, 8), (3, 12), (64, 256)])
def test_far_more_threads_than_cpus_are_refused(
    cpus: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "usable_cpus", lambda: cpus)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    assert set_threads(most) == most
    with pytest.raises(DeviceError, match=rf"^train\.threads: {most + 1} .*set at most {most}, or"):
        set_threads(most + 1)
    assert set_to == [most]


def test_without_a_number_there_is_one_thread_for_each_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    for cpus in (1, 3, 64):
        monkeypatch.setattr(devices, "usable_cpus", lambda cpus=cpus: cpus)
        assert set_threads(None) == min(cpus, MAX_THREADS)
