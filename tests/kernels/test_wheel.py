"""A wheel: with a C compiler it has the kernels compiled, without one it works everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from charlm.kernels.variants import packaged_kernels
from tests.conftest import ROOT
from tests.kernels import skip_without_compiler

BUILD = (
    "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
)
LOAD_ALL = """
import ctypes
from pathlib import Path
import numpy as np
import charlm
from charlm.config import RecurrentConfig
from charlm.kernels import build
from charlm.kernels.variants import load_variant, packaged_kernels, usable_variants
from charlm.sampling.native import code

usable = usable_variants()
kernels = [it for it in packaged_kernels() if it[1] in usable]
for name, variant in kernels:
    library = load_variant(name, variant)
    assert Path(library._name).parent == build.PACKAGED
assert code.load("gpt")._name == load_variant("gpt", code.variants()[0])._name
print(Path(charlm.__file__).parent.parent, len(kernels))
"""


def run(folder: Path, *command: str, **environment: str) -> str:
    env = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"} | environment
    ended = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, encoding="utf-8"
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def compiler(folder: Path, body: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked sdist of this tree, with the remains of an earlier build."""
    pytest.importorskip("setuptools", "77")
    tmp_path = tmp_path_factory.mktemp("sdist")
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "charlm", tree / "charlm", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tree)
    run(tree, "-c", BUILD, "build_sdist", str(tmp_path))
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / sdist.name.removesuffix(".tar.gz")
    old = folder / "build" / "lib" / "charlm" / "kernels" / "lib" / "old.so"
    old.parent.mkdir(parents=True)
    old.touch()
    return folder


def test_kernels_of_a_wheel_need_no_compiler_and_no_cache(source: Path, tmp_path: Path) -> None:
    skip_without_compiler()
    found = os.environ.get("CC", "").strip() or next(filter(shutil.which, ("cc", "gcc", "clang")))
    quick = compiler(tmp_path, f'exec {found} "$@" -O0')
    run(source, "-c", BUILD, "build_wheel", str(tmp_path), CC=quick)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    site, cache = tmp_path / "site", tmp_path / "cache"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    libraries = list((site / "charlm" / "kernels" / "lib").iterdir())
    assert len(libraries) == len(packaged_kernels())
    environment = {"PYTHONPATH": str(site), "CC": "/missing/cc", "CHARLM_CACHE": str(cache)}
    place, count = run(tmp_path, "-c", LOAD_ALL, **environment).split()
    assert (place, int(count) > 0) == (str(site), True)
    assert not cache.exists()


def test_without_a_compiler_a_wheel_is_for_every_system(source: Path, tmp_path: Path) -> None:
    run(source, "-c", BUILD, "build_wheel", str(tmp_path), CC="/missing/cc")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert not [name for name in names if name.endswith(".so")]
    assert "charlm/kernels/c/matmul.c" in names
    assert "charlm/kernels/c/tiles.h" in names


def test_an_editable_installation_compiles_nothing(source: Path, tmp_path: Path) -> None:
    run(source, "-c", BUILD, "build_editable", str(tmp_path), CC=compiler(tmp_path, "touch $0.ran"))
    assert not (tmp_path / "compiler.ran").exists()
    assert [path.name for path in tmp_path.glob("*-py3-none-any.whl")]
