"""The arithmetic of the kernels on this CPU and, by an emulator, on ARM: portable.c."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from charlm.kernels.build import FLAGS, SOURCES
from charlm.kernels.variants import Variant
from tests.kernels import VARIANTS, skip_without_compiler

PROGRAM = Path(__file__).with_name("portable.c")
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC")]


def compile_program(compiler: list[str], options: list[str], to: Path) -> None:
    command = [*compiler, *flags, *options, f"-I{SOURCES}", str(PROGRAM), "-o", str(to), "-lm"]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert ended.returncode == 0, ended.stderr


def run(*command: str | Path) -> None:
    ended = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("variant", [it for it in VARIANTS if not it.half], ids=lambda it: it.name)
def test_products_and_functions_are_those_of_double_here(variant: Variant, tmp_path: Path) -> None:
    skip_without_compiler()
    found = next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    compiler = os.environ.get("CC", "").split() or [found]
    compile_program(compiler, list(variant.flags), tmp_path / "portable")
    run(tmp_path / "portable")


@pytest.fixture
def cross() -> list[str]:
    if not shutil.which(CROSS):
        pytest.skip(f"there is no {CROSS}")
    return [CROSS]


def test_products_and_functions_are_those_of_double_on_arm(
    cross: list[str], tmp_path: Path
) -> None:
    if not shutil.which(EMULATOR):
        pytest.skip(f"there is no {EMULATOR}")
    compile_program(cross, ["-static"], tmp_path / "portable")
    run(EMULATOR, tmp_path / "portable")


def test_every_kernel_compiles_for_arm(cross: list[str], tmp_path: Path) -> None:
    for source in sorted(SOURCES.glob("*.c")):
        command = [*cross, *FLAGS, "-O1", "-Werror", str(source), "-o", str(tmp_path / "kernel.so")]
        ended = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert ended.returncode == 0, ended.stderr
