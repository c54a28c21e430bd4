"""Shared by the parts of scripts/faults: comparisons of runs, and what commands leave behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faults_child import Child
from faults_runs import NATIVE


def differences(folder: Path, other: Path) -> Iterator[str]:
    """Yield what differs between a run and one that was never stopped, apart from times."""
    for name in ("last.safetensors", "best.safetensors"):
        yield from _tensor_differences(name, folder / name, other / name)
    if (ours := metrics(folder)) != (theirs := metrics(other)):
        first = next((i for i, it in enumerate(ours) if it not in theirs[i : i + 1]), len(ours))
        yield f"metrics: {len(ours)} records of {len(theirs)}, the first that differs: {first}"
    if (folder / "samples.txt").read_bytes() != (other / "samples.txt").read_bytes():
        yield "samples: samples.txt differs"
    files, expected = (
        {path.name for path in each.iterdir() if "tfevents" not in path.name}
        for each in (folder, other)
    )
    if files - expected:
        yield f"leftover: {sorted(files - expected)}"
    if expected - files:
        yield f"missing: {sorted(expected - files)}"


def _tensor_differences(name: str, path: Path, other: Path) -> Iterator[str]:
    if not (path.exists() and other.exists()):
        return  # `differences` reports a missing file
    (ours, meta), (theirs, other_meta) = read_checkpoint(path), read_checkpoint(other)
    wrong = sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))
    if wrong:
        yield f"tensors: {name}: {len(wrong)} of {len(theirs)} differ, such as {wrong[0]}"
    times = ("elapsed_s", "logged_elapsed_s", "wall_s", "evaluated_s", "sampled_s")
    progress, expected = (
        {key: value for key, value in it["progress"].items() if key not in times}
        for it in (meta, other_meta)
    )
    if progress != expected:
        wrong = [key for key in expected if progress.get(key) != expected[key]]
        yield f"progress: {name}: {wrong[0]} is {progress.get(wrong[0])}, not {expected[wrong[0]]}"


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a checkpoint in the simplest way: each tensor as (dtype, shape, bytes), and charlm's
    metadata."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    metadata = json.loads(header.pop("__metadata__")["charlm"])
    tensors = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = (entry["dtype"], entry["shape"], content[begin:end])
    return tensors, metadata


def saved_step(folder: Path) -> int | None:
    """The step of `last` in a run folder, read without charlm; None if there is no such file."""
    path = folder / "last.safetensors"
    return int(read_checkpoint(path)[1]["progress"]["step"]) if path.exists() else None


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl without times and speeds."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    clock = ("elapsed_s", "chars_per_s")
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def lasting_leftovers(place: Path) -> list[str]:
    """What is left in a place after commands that open the cache, which remove what others left."""
    found = list(leftovers(place))
    if any("/encoded/tmp-" in line for line in found):
        (place / "work" / "another.txt").write_text("another text " * 9)
        Child(["data", "stats", "another.txt"], place).wait()
    if any("/kernels/tmp-" in line for line in found):
        Child(NATIVE, place).wait()
    return list(leftovers(place))


def leftovers(place: Path) -> Iterator[str]:
    """Yield temporary files and folders that are left in the folder of a trial at its end."""
    encoded = place / "cache" / "encoded"
    found = [path for path in encoded.glob("*") if not (path.name == "seen" or _is_key(path.name))]
    found += [path for path in encoded.glob("seen/*") if not _is_key(path.name)]
    found += encoded.glob("*/*.tmp")
    kernels = place.glob("cache/kernels/*")
    found += [path for path in kernels if path.suffix not in (".so", ".seconds")]
    # of PyTorch, and of its compiler that was killed
    others = ("torchinductor", "cc") if any(place.glob("tmp/torchinductor*")) else ()
    found += [path for path in place.glob("tmp/*") if not path.name.startswith(others)]
    found += [path for path in place.glob("work/runs/*") if path.name != "run"]
    yield from (f"leftover: {path.relative_to(place)}" for path in found)


def _is_key(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")
