"""How kernels are compiled, kept and verified. Without a compiler, a script takes its place."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from charlm.kernels import build
from charlm.kernels.build import NoKernelError, load_kernel
from tests.conftest import python
from tests.data.test_cache import alter, cut, empty
from tests.kernels import skip_without_compiler

POSIX = pytest.mark.skipif(os.name != "posix", reason="this system has no owners and modes")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A C file in a folder of sources, and an empty cache."""
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    path = tmp_path / "seven.c"
    path.write_text("int seven(void) { return 7; }\n", encoding="utf-8")
    return path


@pytest.fixture
def kernels(source: Path) -> Path:
    """The folder of the cache that has the libraries."""
    return source.parent / "cache" / "kernels"


@pytest.fixture
def fake(source: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A compiler that copies its source, and libraries that are not loaded but listed here."""
    body = 'echo >> "$0.log"; for last; do :; done; cat "$(dirname "$0")/seven.c" > "$last"'
    monkeypatch.setenv("CC", script(source.parent / "cc", body))
    loaded: list[Path] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name: loaded.append(Path(name)))
    return loaded


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def compilations(source: Path) -> int:
    """How often the fake compiler ran."""
    return len((source.parent / "cc.log").read_text("utf-8"))


# --- the compiler ------------------------------------------------------------------------------


def test_a_library_is_compiled_once_for_each_source(source: Path, kernels: Path) -> None:
    skip_without_compiler()
    assert load_kernel("seven", ()).seven() == 7
    (library,) = kernels.iterdir()
    before = library.stat().st_mtime_ns
    assert stat.S_IMODE(library.stat().st_mode) == 0o600
    assert load_kernel("seven", ()).seven() == 7
    assert (library.stat().st_mtime_ns, len(list(kernels.iterdir()))) == (before, 1)
    source.write_text("int seven(void) { return 8; }\n", encoding="utf-8")
    assert load_kernel("seven", ()).seven() == 8
    assert len(list(kernels.iterdir())) == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'no such flag' >&2; exit 1", "no such flag"),
        ("exit 3", "status 3"),
        ("exit 0", "cc writes no library$"),
    ],
)
def test_a_compiler_that_fails_is_reported_and_leaves_no_file(
    source: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setenv("CC", script(source.parent / "cc", body))
    with pytest.raises(NoKernelError, match=words):
        load_kernel("seven", ())
    assert not list(kernels.iterdir())


@pytest.mark.parametrize("value", [None, "", " ", "\t "])
def test_a_missing_compiler_is_reported(
    source: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("CC", raising=False)
    else:
        monkeypatch.setenv("CC", value)
    monkeypatch.setenv("PATH", str(source.parent))
    with pytest.raises(NoKernelError, match=r"^there is no C compiler"):
        load_kernel("seven", ())


@pytest.mark.parametrize("value", ["", " "])
def test_a_blank_cc_means_the_compiler_of_the_system(
    source: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("CC", value)
    monkeypatch.setenv("PATH", str(source.parent))
    script(source.parent / "cc", "echo 'this one' >&2; exit 1")
    with pytest.raises(NoKernelError, match=r"^cc fails: this one$"):
        load_kernel("seven", ())


def test_a_compiler_that_cannot_be_run_is_reported(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", os.devnull)
    with pytest.raises(NoKernelError, match=r"^/dev/null does not start: Permission denied$"):
        load_kernel("seven", ())


def test_a_compiler_that_hangs_is_stopped(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "TIMEOUT_S", 0.2)
    monkeypatch.setenv("CC", script(source.parent / "cc", "exec sleep 60"))
    with pytest.raises(NoKernelError, match=r"took more than 0\.2 s"):
        load_kernel("seven", ())


def test_a_cache_that_cannot_be_written_is_reported(
    source: Path, fake: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(source))
    with pytest.raises(NoKernelError, match=r"/kernels: Not a directory; set CHARLM_CACHE to an"):
        load_kernel("seven", ())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_reported_and_leaves_no_file(
    kernels: Path, fake: list[Path], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoKernelError, match=rf"^seven-.*: {os.strerror(code)}; set CHARLM_CACHE"):
        load_kernel("seven", ())
    assert not list(kernels.iterdir())
    assert fake == []


# --- what is loaded ----------------------------------------------------------------------------


def make_huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse; hashing it would take an hour


def give_to_all(path: Path) -> None:
    path.chmod(0o602)


def give_away(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 65_534, -1)


def link(path: Path) -> None:
    path.rename(path.parent.parent / "other")
    path.symlink_to(path.parent.parent / "other")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "harm", [cut, empty, alter, make_huge, give_to_all, give_away, link, make_pipe]
)
def test_a_library_that_is_not_as_it_was_compiled_is_compiled_again(
    source: Path, kernels: Path, fake: list[Path], harm: Callable[[Path], None]
) -> None:
    load_kernel("seven", ())
    (library,) = kernels.iterdir()
    content = library.read_bytes()
    harm(library)
    for _ in range(2):
        load_kernel("seven", ())
        assert fake[-1] == library
        status = library.lstat()
        assert stat.S_ISREG(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())
        assert library.read_bytes() == content
    assert compilations(source) == 2
    if (other := kernels.parent / "other").exists():
        assert other.read_bytes() == content  # the target of the link


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 8000, -1])
def test_a_library_that_was_cut_short_ends_no_process(
    source: Path, kernels: Path, size: int
) -> None:
    skip_without_compiler()
    load_kernel("seven", ())
    (library,) = kernels.iterdir()
    content = library.read_bytes()
    library.unlink()  # the loaded file stays whole: this process still runs its code at exit
    library.write_bytes(content[:size])
    code = (
        "import sys; from pathlib import Path; from charlm.kernels import build\n"
        "build.SOURCES = Path(sys.argv[1]); print(build.load_kernel('seven', ()).seven())"
    )
    ended = python("-c", code, source.parent)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "7\n", "")


def test_a_library_of_another_name_is_not_loaded(
    source: Path, kernels: Path, fake: list[Path]
) -> None:
    load_kernel("seven", ())
    (library,) = kernels.iterdir()
    forged = library.with_name(re.sub(r"-[0-9a-f]{64}\.so$", f"-{'0' * 64}.so", library.name))
    assert forged != library
    forged.write_bytes(b"evil")
    load_kernel("seven", ())
    assert fake == [library, library]


@POSIX
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_library_and_its_folder_are_private(kernels: Path, fake: list[Path], umask: int) -> None:
    before = os.umask(umask)
    try:
        load_kernel("seven", ())
    finally:
        os.umask(before)
    (library,) = kernels.iterdir()
    assert stat.S_IMODE(library.stat().st_mode) == 0o600
    for folder in (kernels, kernels.parent):
        assert not folder.stat().st_mode & 0o022


@POSIX
@pytest.mark.parametrize("where", [".", "kernels"])
@pytest.mark.parametrize("kind", ["writable", "link", "given away"])
def test_a_cache_that_others_can_change_is_not_used(
    source: Path, kernels: Path, fake: list[Path], where: str, kind: str
) -> None:
    load_kernel("seven", ())
    fake.clear()
    folder = kernels.parent / where
    if kind == "writable":
        folder.chmod(0o757)
    elif kind == "given away":
        give_away(folder)
    elif folder == kernels:
        folder.rename(kernels.parent.parent / "elsewhere")
        folder.symlink_to(kernels.parent.parent / "elsewhere")
    else:
        pytest.skip("the cache itself may be a link")
    with pytest.raises(NoKernelError) as caught:
        load_kernel("seven", ())
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert message.endswith("or set CHARLM_CACHE to another folder")
    assert "\n" not in message
    assert (fake, compilations(source)) == ([], 1)


# --- compilations that were killed -------------------------------------------------------------


LOAD = (
    "import sys; from pathlib import Path; from charlm import cli\n"
    "from charlm.kernels import build\n"
    "build.SOURCES = Path(sys.argv[1])\n"
    "cli._VERBS['runs'] = lambda options: build.load_kernel('seven', ())\n"
    "sys.exit(cli.main(['runs']))"
)


@contextmanager
def compiling(source: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that compiles, with a compiler that does not end and has written a file."""
    started = source.parent / "started"
    compiler = script(
        source.parent / "slow",
        f'for last; do :; done; echo > "$last"; mktemp; echo > {started}; exec sleep 60',
    )
    with subprocess.Popen(
        [sys.executable, "-c", LOAD, source.parent],
        env=os.environ | {"CC": compiler, "PYTHONPATH": str(Path(build.__file__).parents[2])},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_of_a_compilation(
    source: Path, kernels: Path, number: signal.Signals
) -> None:
    with compiling(source) as process:
        (folder,) = kernels.iterdir()
        assert len(list(folder.iterdir())) == 2  # the library, and a temporary file of the compiler
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert list(kernels.iterdir()) == []


@POSIX
@pytest.mark.parametrize("is_compiled", [False, True])
def test_what_a_killed_compilation_left_is_removed_when_a_kernel_is_loaded(
    source: Path, kernels: Path, fake: list[Path], is_compiled: bool
) -> None:
    if is_compiled:
        load_kernel("seven", ())
    others = [kernels / name for name in ("tmp-mine", "tmp-0123456789abcdef0", "notes.tmp")]
    linked = kernels / "tmp-0123456789abcdef"
    with compiling(source) as process:
        folder = next(path for path in kernels.iterdir() if path.is_dir())
        for path in others:
            path.mkdir()
        (source.parent / "target").mkdir()
        linked.symlink_to(source.parent / "target")
        load_kernel("seven", ())
        assert len(list(folder.iterdir())) == 2  # that process is alive
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        assert folder.exists()
        load_kernel("seven", ())
    assert set(kernels.iterdir()) == {fake[-1], linked, *others}
    assert (source.parent / "target").exists()
    assert compilations(source) == 1
