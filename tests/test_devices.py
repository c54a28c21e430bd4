"""The number of CPU threads."""

from __future__ import annotations

import pytest
import torch

from charlm import devices
from charlm.devices import MAX_THREADS, set_threads
from charlm.errors import DeviceError

pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.mark.parametrize(("cpus", "most"), [(1, MAX_THREADS), (2, 8), (3, 12), (64, 256)])
def test_the_number_of_threads_depends_on_that_of_the_cpus(
    cpus: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a number there is one thread for each CPU. Far more than CPUs are refused."""
    monkeypatch.setattr(devices, "usable_cpus", lambda: cpus)
    assert set_threads(most) == most == torch.get_num_threads()
    with pytest.raises(DeviceError, match=rf"^train\.threads: {most + 1} .*set at most {most}, or"):
        set_threads(most + 1)
    assert torch.get_num_threads() == most
    assert set_threads(None) == min(cpus, MAX_THREADS) == torch.get_num_threads()
