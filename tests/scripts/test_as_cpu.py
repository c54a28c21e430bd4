"""scripts/as_cpu: a command held to an older CPU; every precision of every model there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import KINDS, ROOT, python

AS_CPU = ROOT / "scripts" / "as_cpu"
LEVELS = {"default": "", "avx2": "avx2", "avx512": "avx512f", "avx512_bf16": "avx512_bf16"}
TRY_ALL = """
import json, sys
import torch
from charlm.cli import main
from charlm.machine import instruction_set

file, out, kinds = sys.argv[1], sys.argv[2], sys.argv[3].split()
found = {"torch": torch.backends.cpu.get_cpu_capability(), "charlm": instruction_set()}
for kind in kinds:
    for precision in ("auto", "fp32", "bf16", "fp16"):
        name = f"{kind}-{precision}"
        settings = [f"model.kind={kind}", f"train.precision={precision}"]
        settings.append("train.optimizer.kind=muon")
        arguments = ["train", "--config", file, "--name", name, "--out", out, "--device", "cpu"]
        found[name] = main([*arguments, *(it for pair in settings for it in ("--set", pair))])
print(json.dumps(found))
"""


def features() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return set()


def as_cpu(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return python("-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", AS_CPU, *command)


@pytest.mark.parametrize("level", LEVELS)
def test_every_precision_trains_there_or_is_refused_in_one_line(
    level: str, tiny_text: Path, tmp_path: Path
) -> None:
    if LEVELS[level] not in {"", *features()}:
        pytest.skip(f"this CPU has no {level}")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data: {{path: '{tiny_text}'}}\n"
        "model: {n_layer: 1}\n"
        "train: {batch_size: 4, max_steps: 2}\n"
        "eval: {every: null, sample_every: null, max_chars: 100}\n",
        encoding="utf-8",
    )
    kinds = KINDS if level == "avx2" else ("lstm",)
    ended = as_cpu(level, sys.executable, "-c", TRY_ALL, config, tmp_path / "runs", " ".join(kinds))
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    if level != "default":
        assert found.pop("charlm") == level
        assert found.pop("torch").lower() == level.removesuffix("_bf16")
    else:
        del found["charlm"], found["torch"]
    assert len(found) == 4 * len(kinds)
    refused = {name for name, status in found.items() if status}
    assert all(found[name] == 2 for name in refused)
    assert not {name for name in refused if name.endswith(("auto", "fp32"))}
    errors = [line for line in ended.stderr.splitlines() if not line.startswith("charlm: note: ")]
    assert len(errors) == len(refused)
    assert all(line.startswith("charlm: train.precision ") for line in errors)


@pytest.mark.parametrize("arguments", [(), ("avx2",), ("sse9", "true")])
def test_what_it_does_not_know_is_one_line(arguments: tuple[str, ...]) -> None:
    ended = as_cpu(*arguments)
    assert ended.returncode == 2
    assert "usage: scripts/as_cpu {avx2|avx512|avx512_bf16|default} COMMAND" in ended.stderr


def test_a_cpu_that_lacks_the_level_is_told_so() -> None:
    missing = [level for level, feature in LEVELS.items() if feature not in {"", *features()}]
    if not missing:
        pytest.skip("this CPU has every level")
    ended = as_cpu(missing[0], "true")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"this CPU has no {missing[0]}" in ended.stderr
