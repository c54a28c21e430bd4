"""What this machine lets a process use: CPUs, and the instructions they have. Needs no torch.

The variable CHARLM_ISA holds charlm to an older CPU than the one at hand; `scripts/as_cpu`
sets it, with the variables that PyTorch, oneDNN, MKL and OpenBLAS have for the same.
"""

from __future__ import annotations

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# the features that a CPU held to a level does not have, by how their names begin
_BEYOND = {
    "avx2": ("avx512", "avx_vnni", "amx"),
    "avx512": ("avx512_bf16", "avx512_fp16", "amx"),
}


def held_to() -> str | None:
    """The level that CHARLM_ISA names, avx2 or avx512; None for the CPU as it is."""
    level = os.environ.get("CHARLM_ISA", "")
    return level if level in _BEYOND else None


def cpu_features() -> set[str]:
    """The features of the first CPU by Linux's names; empty where the system has no list."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    beyond = _BEYOND.get(held_to() or "", ())
    return {name for name in line.partition(":")[2].split() if not name.startswith(beyond)}


def instruction_set() -> str:
    """The widest of the instruction sets that matter here: amx, avx512_bf16, avx512, avx2, ...

    Empty where the system has no list of features.
    """
    features = cpu_features()
    names = {"amx": "amx_bf16", "avx512_bf16": "avx512_bf16", "avx512": "avx512f"}
    names |= {"avx2": "avx2", "bf16": "bf16", "neon": "asimd"}
    return next((name for name, feature in names.items() if feature in features), "")


# --- how many CPUs ---------------------------------------------------------------------------


def usable_cpus(root: Path = Path("/")) -> int:
    """How many CPUs this process can keep busy: those it may run on, and no more than the CPU
    quota of its control groups (Linux), rounded down, because threads that wait for each other
    lose more by a quota that is used up than they gain. At least 1.

    Args:
        root: where /proc and /sys are.
    """
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cpus = os.cpu_count() or 1
    return max(1, min([cpus, *map(int, _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """The CPU quotas of this process's control groups and all above them, in CPUs."""
    quotas = []
    for folder, is_v2 in _control_groups(root):
        quota = _read_v2(folder) if is_v2 else _read_v1(folder)
        if quota is not None:
            quotas.append(quota)
    return quotas


def _control_groups(root: Path) -> list[tuple[Path, bool]]:
    """The folders of the groups that limit this process's CPU time, and whether each is of cgroup
    version 2. A container sees its own group as the top one, or not at all: the top is included.
    """
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [""] if not controllers else [controllers, "cpu"]
        top = next((it for name in mounts if (it := root / "sys/fs/cgroup" / name).is_dir()), None)
        parts = [part for part in group.split("/") if part not in ("", "..")]
        if top is not None:
            for depth in range(len(parts) + 1):
                found.append((top.joinpath(*parts[:depth]), not controllers))
    return found


def _read_v2(folder: Path) -> float | None:
    """`cpu.max` is `QUOTA PERIOD` in microseconds, or `max PERIOD`."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    if len(words) != 2 or not all(word.isdecimal() for word in words) or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])


def _read_v1(folder: Path) -> float | None:
    """`cpu.cfs_quota_us` and `cpu.cfs_period_us`; a quota of -1 is none."""
    words = [" ".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period")]
    if not all(word.isdecimal() for word in words) or words[1] == "0":
        return None
    return int(words[0]) / int(words[1])


def _lines(path: Path) -> list[str]:
    """The lines of a small file; none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
