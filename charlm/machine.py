"""The CPUs that this process may use, their instructions, and its memory. Needs no torch.

The environment variable CHARLM_ISA limits charlm to the instructions of an older CPU.
`scripts/as_cpu` sets it, together with the same variables of PyTorch, oneDNN, MKL and OpenBLAS.
"""

from __future__ import annotations

import os
from pathlib import Path

from charlm.errors import CharlmError
from charlm.visible import visible

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# for each level, prefixes of the feature names that a CPU of this level does not have
_EXCLUDED = {
    "avx2": ("avx512", "avx_vnni", "amx"),
    "avx512": ("avx512_bf16", "avx512_fp16", "amx"),
    "avx512_bf16": ("avx512_fp16", "amx"),
}


def isa_limit() -> str | None:
    """The level that CHARLM_ISA names, a key of _EXCLUDED; None if the CPU is not limited.

    Raises:
        CharlmError: it names no level.
    """
    level = os.environ.get("CHARLM_ISA") or None
    if level is not None and level not in _EXCLUDED:
        known = ", ".join(_EXCLUDED)
        raise CharlmError(
            f"CHARLM_ISA={visible(level)}: no such instruction set; choose {known}, or unset it"
        )
    return level


def cpu_features(root: Path = Path("/")) -> set[str]:
    """The features of the first CPU, with Linux's names; empty if the system does not list them.

    Args:
        root: the folder that contains /proc.
    """
    lines = _lines(root / "proc/cpuinfo")
    line = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    excluded = _EXCLUDED.get(isa_limit() or "", ())
    return {name for name in line.partition(":")[2].split() if not name.startswith(excluded)}


def instruction_set(root: Path = Path("/")) -> str:
    """The widest of the instruction sets that charlm uses: amx, avx512_bf16, avx512, avx2, ...

    Empty if the system does not list the CPU's features. `root` is that of `cpu_features`.
    """
    features = cpu_features(root)
    names = {"amx": "amx_bf16", "avx512_bf16": "avx512_bf16", "avx512": "avx512f"}
    names |= {"avx2": "avx2", "bf16": "bf16", "neon": "asimd"}
    return next((name for name, feature in names.items() if feature in features), "")


# --- the number of CPUs ----------------------------------------------------------------------


def usable_cpus(root: Path = Path("/")) -> int:
    """The number of CPUs that this process can keep busy, at least 1.

    This is the number of CPUs in its affinity mask, limited by the CPU quota of its control groups
    (Linux). The quota is rounded down: threads that wait for each other lose more when the quota is
    used up than one more thread gains.

    Args:
        root: the folder that contains /proc and /sys.
    """
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not available on every system
        cpus = os.cpu_count() or 1
    return max(1, min([cpus, *map(int, _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """The CPU quotas, in CPUs, of this process's control groups and of their parents."""
    quotas = []
    for folder, is_v2 in _control_groups(root, "cpu"):
        # microseconds: the quota, and the period to which it applies; `max` or -1 for no quota
        names = ("cpu.max",) if is_v2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = " ".join(line for name in names for line in _lines(folder / name)).split()
        if len(words) == 2 and all(map(str.isdecimal, words)) and words[1] != "0":
            quotas.append(int(words[0]) / int(words[1]))
    return quotas


def _control_groups(root: Path, controller: str) -> list[tuple[Path, bool]]:
    """The folders of the control groups that limit this process's use of a resource, and whether
    each is of cgroup version 2. A container sees its own group as the root group or does not see
    it, so the root group is included.
    """
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [""] if not controllers else [controllers, controller]
        top = next((it for name in mounts if (it := root / "sys/fs/cgroup" / name).is_dir()), None)
        parts = [part for part in group.split("/") if part not in ("", "..")]
        if top is not None:
            for depth in range(len(parts) + 1):
                found.append((top.joinpath(*parts[:depth]), not controllers))
    return found


def _lines(path: Path) -> list[str]:
    """The lines of a small file; an empty list if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


# --- memory ----------------------------------------------------------------------------------


def usable_memory(root: Path = Path("/")) -> int | None:
    """The number of bytes that this process can never exceed; None if it is not reported.

    This is the machine's memory and swap space, limited by the control groups (Linux) and by
    `ulimit -v`. Other processes use a part of it.

    Args:
        root: the folder that contains /proc and /sys.
    """
    sizes = {words[0]: int(words[1]) for words in map(str.split, _lines(root / "proc/meminfo"))}
    swap = 1024 * sizes.get("SwapTotal:", 0)
    limits = [1024 * sizes["MemTotal:"] + swap] if "MemTotal:" in sizes else _physical_memory()
    for folder, is_v2 in _control_groups(root, "memory"):
        lines = _lines(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"))
        limits += [int(line) + swap for line in lines if line.isdecimal()]  # not `max`
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits += [limit] if limit != resource.RLIM_INFINITY else []
    return min(limits, default=None)


def _physical_memory() -> list[int]:
    """The bytes of memory of a system without /proc, in a list; empty if it is not reported."""
    try:
        return [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):
        return []


def limit_spinning(spins: int) -> None:
    """Let idle OpenMP threads spin only briefly before they sleep.

    By default they spin for milliseconds. If another process needs the core, training then becomes
    20 times slower. The variable must be set before torch is imported. A value set by the user is
    kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(spins))
