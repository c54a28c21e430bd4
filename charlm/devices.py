"""The devices of this machine, and the number of CPU threads of this process."""

from __future__ import annotations

import torch

from charlm.errors import DeviceError
from charlm.machine import usable_cpus

CPU = torch.device("cpu")
MAX_THREADS = 8  # beyond that, barriers cost layers of a few hundred units more than threads gain


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first available of cuda, mps and cpu.

    For cuda, this also sets PyTorch to compute float32 products as TF32.

    Raises:
        DeviceError: this machine has no such device.
    """
    if name == "auto":
        gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, is_available in gpus.items() if is_available), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device={name}: choose auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cpu":
        return CPU
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            what = f"there are {count}, counted from 0" if count else "PyTorch finds no CUDA GPU"
            raise DeviceError(f"device={name}: {what}; use device=auto or cpu")
        torch.set_float32_matmul_precision("high")  # TF32
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device={name}: PyTorch finds no Apple GPU; use device=auto or cpu")
    elif device.type != "mps":
        raise DeviceError(f"device={name}: choose auto, cpu, cuda, cuda:N or mps")
    return device


def set_threads(wanted: int | None) -> int:
    """Set and return the number of CPU threads.

    Args:
        wanted: the number, or None: one for each usable CPU, but at most MAX_THREADS and at most
            the number that PyTorch uses now.

    Raises:
        DeviceError: there are far more threads than CPUs, so that training would hardly move.
    """
    if wanted is None:
        wanted = min(torch.get_num_threads(), usable_cpus(), MAX_THREADS)
    most = max(MAX_THREADS, 4 * usable_cpus())
    if wanted > most:
        raise DeviceError(
            f"train.threads: {wanted} threads are too many for the {usable_cpus()} CPUs that this "
            f"process can use; set at most {most}, or null"
        )
    torch.set_num_threads(wanted)
    return wanted
