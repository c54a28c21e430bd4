"""CPUs, instructions, memory: affinity, quotas of control groups, CHARLM_ISA, ulimit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from charlm.errors import CharlmError
from charlm.machine import cpu_features, instruction_set, usable_cpus, usable_memory

HOST_CPUS = 64


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder without control groups, on a host with many CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(HOST_CPUS), raising=False)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def v2(root: Path, group: str, **quotas: str) -> int:
    """usable_cpus for a process in a group of cgroup version 2; quotas by the group's depth."""
    write(root, {"proc/self/cgroup": f"0::{group}\n"})
    parts = [part for part in group.split("/") if part]
    for depth, quota in quotas.items():
        folder = "/".join(["sys/fs/cgroup", *parts[: int(depth[1:])]])
        write(root, {f"{folder}/cpu.max": quota})
    return usable_cpus(root)


def test_without_control_groups_the_affinity_counts(root: Path) -> None:
    assert usable_cpus(root) == HOST_CPUS
    assert usable_cpus(root / "missing") == HOST_CPUS


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000\n", HOST_CPUS),
        ("100000 100000\n", 1),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),  # a third thread would wait half of the time
        ("50000 100000\n", 1),  # at least 1
        ("12800000 100000\n", HOST_CPUS),
        ("", HOST_CPUS),
        ("nonsense\n", HOST_CPUS),
        ("100000 0\n", HOST_CPUS),
        ("-1 100000\n", HOST_CPUS),
    ],
)
def test_the_quota_of_a_container_counts(root: Path, quota: str, cpus: int) -> None:
    assert v2(root, "/", d0=quota) == cpus


def test_the_smallest_quota_of_all_parent_groups_counts(root: Path) -> None:
    path = "/kubepods/pod1/box"
    assert v2(root, path, d3="max 100000", d2="300000 100000", d1="900000 100000") == 3


def test_a_group_outside_the_container_is_its_root_group(root: Path) -> None:
    write(root, {"sys/fs/cgroup/cpu.max": "400000 100000"})
    assert v2(root, "/../../outside") == 4


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [("200000", "100000", 2), ("-1", "100000", HOST_CPUS), ("x", "", HOST_CPUS)],
)
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_version_1_counts(
    root: Path, mount: str, quota: str, period: str, cpus: int
) -> None:
    folder = f"sys/fs/cgroup/{mount}/docker/1"
    groups = f"12:memory:/docker/1\n3:cpuset:/\n2:{mount}:/docker/1\n1:name=systemd:/x\n"
    write(root, {"proc/self/cgroup": groups, f"{folder}/cpu.cfs_quota_us": quota})
    write(root, {f"{folder}/cpu.cfs_period_us": period})
    assert usable_cpus(root) == cpus


@pytest.mark.parametrize(("count", "cpus"), [(5, 5), (None, 1)])
def test_without_affinity_the_cpu_count_is_used(
    root: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, cpus: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cpus(root) == cpus


# --- memory ----------------------------------------------------------------------------------

GB = 2**30
MEMINFO = {"proc/meminfo": f"MemTotal: {8 * 2**20} kB\nMemFree: 1 kB\nSwapTotal: {2**20} kB\n"}


@pytest.fixture
def unlimited(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder for a process without `ulimit -v`."""
    resource = pytest.importorskip("resource")
    infinity = resource.RLIM_INFINITY
    monkeypatch.setattr("resource.getrlimit", lambda _: (infinity, infinity))
    return root


def test_memory_and_swap_count(unlimited: Path) -> None:
    write(unlimited, MEMINFO)
    assert usable_memory(unlimited) == 9 * GB


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": f"{2 * GB}\n"}, 3 * GB),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/memory.max": f"{GB}\n"}, 2 * GB),
        ({"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "max\n"}, 9 * GB),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n2:memory:/box\n",
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{3 * GB}\n",
            },
            4 * GB,
        ),
        (
            {
                "proc/self/cgroup": "2:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            9 * GB,
        ),
    ],
    ids=["v2", "v2 of the parent", "v2 without a limit", "v1", "v1 without a limit"],
)
def test_the_limit_of_a_control_group_counts(
    unlimited: Path, files: dict[str, str], limit: int
) -> None:
    write(unlimited, MEMINFO | files)
    assert usable_memory(unlimited) == limit


def test_the_limit_of_the_process_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    monkeypatch.setattr("resource.getrlimit", lambda _: (GB, GB))
    write(root, MEMINFO)
    assert usable_memory(root) == GB


def test_a_system_without_proc_is_asked_for_its_memory(
    unlimited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", lambda name: pages[name])
    assert usable_memory(unlimited) == 4096_000
    monkeypatch.delattr(os, "sysconf")
    assert usable_memory(unlimited) is None


# --- instructions ----------------------------------------------------------------------------

ALL = "fpu avx2 avx512f avx512bw avx512vl avx512_bf16 avx512_fp16 amx_tile amx_bf16 avx_vnni"


@pytest.mark.parametrize(
    ("line", "expected", "widest"),
    [
        ("flags\t\t: fpu avx2", {"fpu", "avx2"}, "avx2"),
        ("Features\t: fp asimd sve", {"fp", "asimd", "sve"}, "neon"),
        (f"flags\t\t: {ALL}", set(ALL.split()), "amx"),
        ("other: 1", set(), ""),
    ],
)
def test_features_are_read_from_cpuinfo(
    line: str, expected: set[str], widest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x86 calls them flags, ARM Features."""
    monkeypatch.delenv("CHARLM_ISA", raising=False)
    write(tmp_path, {"proc/cpuinfo": f"processor\t: 0\n{line}\n"})
    assert cpu_features(tmp_path) == expected
    assert instruction_set(tmp_path) == widest


@pytest.mark.parametrize(
    ("level", "left"),
    [
        ("avx2", "fpu avx2"),
        ("avx512", "fpu avx2 avx512f avx512bw avx512vl avx_vnni"),
        ("avx512_bf16", "fpu avx2 avx512f avx512bw avx512vl avx512_bf16 avx_vnni"),
        ("", ALL),
    ],
)
def test_charlm_can_be_limited_to_an_older_cpu(
    level: str, left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"proc/cpuinfo": f"flags\t: {ALL}\n"})
    monkeypatch.setenv("CHARLM_ISA", level)
    assert cpu_features(tmp_path) == set(left.split())
    assert instruction_set(tmp_path) == (level or "amx")


@pytest.mark.parametrize("level", ["avx512bf16", "AVX2", "\x1b[2J"])
def test_an_unknown_level_is_an_error(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARLM_ISA", level)
    with pytest.raises(CharlmError, match=r"; choose avx2, avx512, avx512_bf16") as error:
        instruction_set()
    assert "\x1b" not in str(error.value)
