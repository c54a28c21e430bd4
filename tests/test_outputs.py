"""Folders that the user named: nothing is lost that was there, and nothing is left half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from charlm.errors import CharlmError
from charlm.outputs import check_folder_free, write_folder

FILES = {"a.json": b"new", "b.bin": b"\0\1"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_new_folder_has_the_files_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    assert write_folder(tmp_path / "out", FILES, "model", False) == 5
    assert contents(tmp_path / "out") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_folder_that_exists_is_kept_without_permission(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    for act in (check_folder_free, lambda *given: write_folder(given[0], FILES, *given[1:])):
        with pytest.raises(CharlmError, match="already exists; use force=True to replace the"):
            act(tmp_path, "model", False)
    assert contents(tmp_path) == {"a.json": b"old"}


def test_with_permission_only_the_files_of_the_same_names_are_replaced(tmp_path: Path) -> None:
    other, folder = tmp_path / "other", tmp_path / "folder"
    other.write_bytes(b"other")
    folder.mkdir()
    (folder / "mine").write_bytes(b"mine")
    (folder / "a.json").symlink_to(other)  # a link is replaced, and what it leads to stays
    for _ in range(2):
        write_folder(folder, FILES, "model", True)
        assert contents(folder) == FILES | {"mine": b"mine"}
    assert other.read_bytes() == b"other"


def test_a_folder_with_the_name_of_a_file_stops_before_anything_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "b.bin").mkdir()
    (tmp_path / "a.json").write_bytes(b"old")
    with pytest.raises(CharlmError, match=r"b\.bin is a folder in it"):
        write_folder(tmp_path, FILES, "model", True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.bin"]
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "later").symlink_to(tmp_path / "new")
    write_folder(tmp_path / "link", FILES, "model", True)
    write_folder(tmp_path / "later", FILES, "model", False)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "later").is_symlink()
    assert contents(tmp_path / "real") == contents(tmp_path / "new") == FILES


@pytest.mark.parametrize("place", ["file", "file/below", "missing/below", "loop"])
def test_a_place_that_cannot_be_a_folder_is_reported(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(tmp_path.iterdir())
    for overwrite in (False, True):
        with pytest.raises(CharlmError, match=r"out=DIR (needs the name of a|for another) folder"):
            check_folder_free(tmp_path / place, "model", overwrite)
        with pytest.raises(CharlmError):
            write_folder(tmp_path / place, FILES, "model", overwrite)
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, content: bytes) -> int:
        if path.name == "b.bin":
            raise OSError(28, "No space left on device", str(path))
        return original(path, content)

    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(CharlmError, match="cannot write the model: No space left on device"):
        write_folder(tmp_path / "out", FILES, "model", False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_reported(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0o500)
    for path, overwrite in ((tmp_path / "closed" / "new", False), (tmp_path / "closed", True)):
        with pytest.raises(CharlmError, match="no permission to write in"):
            check_folder_free(path, "model", overwrite)
