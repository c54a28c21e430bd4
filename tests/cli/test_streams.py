"""Standard streams that are closed, full or broken; and errors that come from elsewhere."""

from __future__ import annotations

import argparse
import errno
import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from charlm import cli
from tests.conftest import ROOT, Charlm, TinyRun

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


def shell(command: str, redirections: str = "") -> subprocess.CompletedProcess[str]:
    """Run charlm in a shell. Its output is captured where it is not redirected."""
    words = [sys.executable, "-m", "charlm", *shlex.split(command)]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *words],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


# --- closed streams --------------------------------------------------------------------------

CLOSED = [
    " ".join(each) for n in (1, 2, 3) for each in itertools.combinations(("<&-", ">&-", "2>&-"), n)
]
VERBS = (
    "info checkpoints/lstm",
    "info other/missing",
    "sample checkpoints/lstm --engine numpy --seed 1 --prompt €",
    "sample checkpoints/lstm --engine numpy --seed 1 --on-unknown skip --prompt €the",
    "sample checkpoints/lstm --engine numpy --interactive",
    "data stats -",
    "--version",
    "",
)


@pytest.fixture(scope="module")
def verbs_of(
    tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """What each of VERBS does if all streams are open."""
    folder = tmp_path_factory.mktemp("open")
    (folder / "checkpoints").symlink_to(tiny_run("lstm").parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return {command: shell(command) for command in VERBS}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@POSIX
@pytest.mark.parametrize("closed", CLOSED)
def test_a_closed_stream_changes_nothing_else(
    closed: str, workplace: Path, verbs_of: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    before = files(workplace)
    for command, usual in verbs_of.items():
        found = shell(command, closed)
        assert found.returncode == usual.returncode, found.stderr
        assert found.stdout == usual.stdout * (" >&-" not in f" {closed}")
        assert found.stderr == usual.stderr * ("2>&-" not in closed)
    assert files(workplace) == before


@POSIX
@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_run_without_streams_writes_no_message_into_its_files(
    closed: str, workplace: Path
) -> None:
    command = "train --config lstm.yaml --name new --device cpu --init-from checkpoints/lstm"
    assert shell(command, closed).returncode == 0
    written = files(workplace / "checkpoints" / "new")
    assert {path.suffix for path in written} >= {".jsonl", ".txt", ".safetensors", ".yaml"}
    assert not [path for path, content in written.items() if b"weights from" in content]


# --- streams that cannot be written ------------------------------------------------------------


@LINUX
@pytest.mark.parametrize("command", ["--help", "info", "config schema", "sample --engine numpy"])
def test_output_that_cannot_be_written_is_reported(workplace: Path, command: str) -> None:
    ended = shell(command, ">/dev/full")
    assert (ended.returncode, ended.stderr) == (
        2,
        "charlm: standard output: cannot write: No space left on device\n",
    )


@LINUX
def test_messages_that_cannot_be_written_change_nothing_else(workplace: Path) -> None:
    assert shell("info other/missing", "2>/dev/full").returncode == 2
    command = "train --config lstm.yaml --name new --device cpu --init-from checkpoints/lstm"
    ended = shell(command, "2>/dev/full")
    assert ended.returncode == 0
    assert "finished at step 6" in ended.stdout


# --- errors that come from elsewhere -----------------------------------------------------------


def fail_with(error: OSError, charlm: Charlm, monkeypatch: pytest.MonkeyPatch) -> str:
    def fail(_options: argparse.Namespace) -> int:
        raise error

    monkeypatch.setitem(cli._VERBS, "info", fail)
    result = charlm("info")
    assert (result.status, result.out) == (2, "")
    return result.err


@pytest.mark.parametrize("name", ["a.txt", b"a.txt", Path("a.txt")])
def test_an_error_names_its_file(
    name: object, charlm: Charlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(errno.ENOSYS, "Function not implemented", name)
    assert fail_with(error, charlm, monkeypatch) == "charlm: a.txt: Function not implemented\n"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOSPC, errno.EPIPE])
def test_an_error_without_a_file_is_not_blamed_on_standard_output(
    number: int, charlm: Charlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="from elsewhere"):
        fail_with(OSError(number, "from elsewhere"), charlm, monkeypatch)
