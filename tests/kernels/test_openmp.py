"""The threads of the kernels: by PyTorch's OpenMP library, by others, and without one."""

from __future__ import annotations

import ctypes
import os
import shutil
from ctypes.util import find_library
from pathlib import Path

import pytest

from charlm.kernels import build, openmp
from tests.conftest import python
from tests.kernels import skip_without_compiler

THREADS_H = build.SOURCES / "threads.h"
# the number of threads that do a part, each with another number, and all with the right total
SOURCE = """
#include "threads.h"

enum { MOST = 8 };
static int totals[MOST];

static void work(const void *job, int me, int of) {
  *(int *)job = 0;
  totals[me] = of;
  barrier(of);
  if (me == 0)
    for (int i = 0; i < MOST; i++) *(int *)job += totals[i] == of;
}

int parts(int threads) {
  int sum;
  for (int i = 0; i < MOST; i++) totals[i] = 0;
  on_threads(threads, NULL, NULL, work, &sum);
  return sum;
}
"""
RUN = """
import ctypes, sys
from pathlib import Path
from charlm.kernels import build, openmp

build.SOURCES = Path(sys.argv[1])
openmp._bundled = lambda: sys.argv[2:]
library = build.load_kernel("parts", ())
openmp.use_threads(library)
print(library.parts(1), library.parts(3), library.parts(1), library.parts(2))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources, and an empty cache."""
    skip_without_compiler()
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    shutil.copy(THREADS_H, tmp_path)
    (tmp_path / "parts.c").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def test_without_an_openmp_library_there_is_one_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build.load_kernel("parts", ())
    assert (library.parts(1), library.parts(3)) == (1, 1)
    monkeypatch.setattr(openmp, "_openmp", lambda: None)
    openmp.use_threads(library)
    assert (library.parts(1), library.parts(3)) == (1, 1)


def test_the_threads_are_those_of_the_library_that_pytorch_has_loaded(folder: Path) -> None:
    found = openmp._openmp()
    if found is None:
        pytest.skip("there is no OpenMP library")
    library = build.load_kernel("parts", ())
    openmp.use_threads(library)
    assert (library.parts(1), library.parts(3), library.parts(2)) == (1, 3, 2)
    maps = Path("/proc/self/maps")
    if maps.exists() and any(map(Path.exists, openmp._bundled())):
        assert str(Path(found._name).resolve()) in maps.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["gomp", "omp", "omp5", "iomp5"])
def test_gnus_and_llvms_library_will_do(folder: Path, name: str) -> None:
    found = find_library(name)
    if not found:
        pytest.skip(f"there is no lib{name}")
    ended = python("-c", RUN, folder, found)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "1 3 1 2\n", "")


def test_a_library_without_the_functions_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    other = find_library("m")
    if not other:
        pytest.skip("there is no other library")
    monkeypatch.setattr(openmp, "_bundled", lambda: [other])
    openmp._openmp.cache_clear()
    found = openmp._openmp()
    openmp._openmp.cache_clear()
    assert found is None or isinstance(found, ctypes.CDLL)
    assert found is None or found._name != other


def test_a_compiler_without_openmp_will_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, cc = folder / "compiler", os.environ.get("CC", "").strip() or "cc"
    body = f'case " $* " in *" -fopenmp "*) echo "no OpenMP" >&2; exit 1;; esac; exec {cc} "$@"'
    compiler.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert build.load_kernel("parts", ()).parts(1) == 1
