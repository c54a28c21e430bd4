"""Devices and CPU threads: which ones this machine has, and which ones a process uses."""

from __future__ import annotations

import torch

from charlm.errors import DeviceError
from charlm.machine import usable_cpus

CPU = torch.device("cpu")
MAX_THREADS = 8  # with more, layers of a few hundred units lose more at barriers than they gain


def choose_device(name: str) -> torch.device:
    """The device that a name stands for; `auto` is cuda, else mps, else cpu.

    On cuda, float32 products are TF32 from then on.

    Raises:
        DeviceError: this machine has no such device.
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, is_there in there.items() if is_there), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device={name}: choose auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cpu":
        return CPU
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            has = f"there are {count}, counted from 0" if count else "PyTorch finds no CUDA GPU"
            raise DeviceError(f"device={name}: {has}; use device=auto or cpu")
        torch.set_float32_matmul_precision("high")  # TF32 in float32 products
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device={name}: PyTorch finds no Apple GPU; use device=auto or cpu")
    elif device.type != "mps":
        raise DeviceError(f"device={name}: choose auto, cpu, cuda, cuda:N or mps")
    return device


def set_threads(wanted: int | None) -> int:
    """Set and return the number of CPU threads; None is one for each CPU that can be kept busy."""
    if wanted is None:
        wanted = min(torch.get_num_threads(), usable_cpus(), MAX_THREADS)
    torch.set_num_threads(wanted)
    return wanted
