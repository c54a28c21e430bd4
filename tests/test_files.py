"""The cache folder, files that others cannot change, locks on folders, and flushing."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from charlm.files import (
    ExposedError,
    build_folder,
    build_prefix,
    cache_folder,
    check_private,
    flush,
    is_locked,
    locked,
    open_private,
    private_folder,
    remove_abandoned,
    remove_folder,
)

LOCKS = pytest.mark.skipif(os.name != "posix", reason="this system has no locks")
POSIX = pytest.mark.skipif(os.name != "posix", reason="this system has no owners and modes")


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


def failing(code: int) -> Any:
    """A function of the system that fails with this code."""

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


NO_LOCKS = [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK]


@LOCKS
@pytest.mark.parametrize("code", NO_LOCKS)
@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("without", [True, False])
def test_on_a_file_system_without_locks_the_caller_says_what_is_yielded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, wait: bool, without: bool
) -> None:
    monkeypatch.setattr("fcntl.flock", failing(code))
    with locked(tmp_path, wait) as by_default, locked(tmp_path, wait, without=without) as ours:
        assert (by_default, ours) == (True, without)


@LOCKS
def test_another_error_of_a_lock_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path, wait=False):
        pass


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_flush_that_is_not_supported_is_no_error(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))
    flush(0)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EBADF])
def test_a_flush_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "fsync", failing(code))
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        flush(0)


# --- private files -------------------------------------------------------------------------------


def status(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


@POSIX
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR])
@pytest.mark.parametrize(
    ("mode", "owner", "problem"),
    [
        (0o600, "own", None),
        (0o755, "own", None),
        (0o775, "own", None),  # many systems give every user a group of their own
        (0o755, "root", None),
        (0o702, "own", "every user can write to it"),
        (0o1777, "root", "every user can write to it"),
        (0o600, "other", "it belongs to another user"),
    ],
)
def test_only_this_user_and_root_may_change_a_private_file(
    tmp_path: Path, kind: int, mode: int, owner: str, problem: str | None
) -> None:
    owners = {"own": os.geteuid(), "root": 0, "other": os.geteuid() + 1}
    if problem is None:
        check_private(tmp_path, status(kind | mode, owners[owner]))
        return
    with pytest.raises(ExposedError) as caught:
        check_private(tmp_path, status(kind | mode, owners[owner]))
    assert (caught.value.strerror, caught.value.filename) == (problem, str(tmp_path))


def test_a_private_file_is_opened_and_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open_private(tmp_path / "file") as file:
        assert file.read() == b"content"
    with pytest.raises(FileNotFoundError):
        open_private(tmp_path / "missing")


@POSIX
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_a_regular_file_is_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "link":
        (tmp_path / "file").touch()
        path.symlink_to("file")
    elif kind == "pipe":
        os.mkfifo(path)  # opening it would block
    else:
        path.mkdir()
    with pytest.raises(ExposedError, match="symbolic link" if kind == "link" else "regular file"):
        open_private(path)


@POSIX
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_that_is_exchanged_before_it_is_opened_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, open_ = tmp_path / "file", os.open
    path.touch()
    (tmp_path / "other").touch()

    def exchange(*arguments: Any) -> int:
        path.unlink()
        path.symlink_to("other") if kind == "link" else os.mkfifo(path)
        return open_(*arguments)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(OSError, match="symbolic links" if kind == "link" else "regular file"):
        open_private(path)


@POSIX
def test_folders_of_the_cache_are_created_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "a" / "cache"))
    assert private_folder("kernels") == tmp_path / "a" / "cache" / "kernels"
    assert not (tmp_path / "a").exists()
    before = os.umask(0)
    try:
        folder = private_folder("kernels", create=True)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o755, 0o755]


def test_a_folder_is_removed_with_the_named_files_only(tmp_path: Path) -> None:
    for name in ("own-1", "own-2", "other"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).touch()
    with pytest.raises(OSError, match=r"."):
        remove_folder(tmp_path / "folder", re.compile(r"own-\d"))
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["other"]
    remove_folder(tmp_path / "folder", re.compile("other"))
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").touch()
    (tmp_path / "link").symlink_to("target")
    remove_folder(tmp_path / "link", re.compile("file"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").symlink_to(tmp_path / "target" / "file")
    remove_folder(tmp_path / "folder", re.compile("file"))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["file"]


@POSIX
def test_a_folder_that_is_exchanged_for_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, target, open_ = tmp_path / "folder", tmp_path / "target", os.open
    for path in (folder, target):
        path.mkdir()
        (path / "file").touch()

    def exchange(*arguments: Any) -> int:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(target)
        return open_(*arguments)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(NotADirectoryError):
        remove_folder(folder, re.compile("file"))
    assert (target / "file").exists()


# --- folders to build in -----------------------------------------------------------------------

ANY = re.compile(".*")


def test_a_build_folder_is_kept_while_it_is_used_and_then_removed(tmp_path: Path) -> None:
    with build_folder(tmp_path, ANY) as folder:
        (folder / "file").touch()
        remove_abandoned(tmp_path, ANY)
        assert (folder / "file").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, 6, 8])
def test_an_unlocked_build_folder_of_another_machine_is_removed_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    ours = tmp_path / f"{build_prefix()}01234567"
    ours.mkdir()
    monkeypatch.setattr(platform, "node", lambda: "another")
    theirs = tmp_path / f"{build_prefix()}01234567"
    monkeypatch.undo()
    theirs.mkdir()
    assert ours != theirs
    then = time.time() - days * 86_400
    os.utime(theirs, (then, then))
    remove_abandoned(tmp_path, ANY)
    assert list(tmp_path.iterdir()) == [theirs] * (days < 7)


# --- the cache folder ----------------------------------------------------------------------------


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("CHARLM_CACHE", "")
    assert cache_folder().name == "charlm"


@pytest.mark.skipif(os.name != "posix", reason="needs users of POSIX")
def test_a_user_without_a_home_folder_has_a_cache(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    import pwd

    def nobody(_: int) -> None:
        raise KeyError

    for name in ("CHARLM_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert cache_folder() == temporary / f"charlm-{os.getuid()}"


def test_a_locked_folder_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with locked(tmp_path, wait=False) as has_lock:
        assert has_lock
        assert is_locked(tmp_path)
        assert is_locked(tmp_path)
        with locked(tmp_path, wait=False) as second:
            assert not second
    assert not is_locked(tmp_path)


def test_a_look_at_a_lock_does_not_refuse_one_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # as `is_locked` of another process, for a moment
    monkeypatch.setattr("charlm.files.time.sleep", lambda s: os.close(descriptor) if s else None)
    with locked(tmp_path, wait=False) as has_lock:
        assert has_lock


@LOCKS
def test_a_pipe_in_the_place_of_a_folder_is_an_error_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it to read would block
    for use in (
        lambda: is_locked(pipe),
        lambda: locked(pipe, wait=True).__enter__(),
        lambda: build_folder(pipe, re.compile("x")).__enter__(),
        lambda: remove_folder(pipe, re.compile("x")),
    ):
        with pytest.raises(NotADirectoryError):
            use()
    remove_abandoned(pipe, re.compile("x"))
    assert pipe.is_fifo()
