"""The cache folder, and locks on folders."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charlm.files import CAN_LOCK, cache_folder, locked

LOCKS = pytest.mark.skipif(not CAN_LOCK, reason="this system has no locks")


@LOCKS
def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def visit(number: int) -> None:
        for _ in range(50):
            with locked(tmp_path, wait=True) as ours:
                assert ours
                inside.append(number)
                time.sleep(0)  # let another thread try
                assert inside == [number]
                inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(8)))


@LOCKS
def test_without_waiting_a_held_lock_is_reported(tmp_path: Path) -> None:
    with locked(tmp_path, wait=False) as first, locked(tmp_path, wait=False) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path, wait=False) as third:
        assert third


@LOCKS
def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from charlm.files import locked\n"
        "with locked(Path(sys.argv[1]), wait=True): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with locked(tmp_path, wait=False) as ours:
            assert not ours
        process.kill()
        process.wait()
        with locked(tmp_path, wait=False) as ours:
            assert ours


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("CHARLM_CACHE", "")
    assert cache_folder().name == "charlm"


@pytest.mark.skipif(os.name != "posix", reason="needs users of POSIX")
def test_a_user_without_a_home_folder_has_a_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pwd

    def nobody(_: int) -> None:
        raise KeyError

    for name in ("CHARLM_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"charlm-{os.getuid()}"
