"""Run folders: locked before anything in them is read, and no file of the user is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charlm.checkpoint.format import LAST
from charlm.checkpoint.run_folder import (
    CONFIG,
    edited_config,
    kept_checkpoint,
    new_run,
    remove_kept,
    stopped_run,
    write_config,
)
from charlm.checkpoint.write import TEMPORARY, write
from charlm.config.files import load_config, to_yaml
from charlm.errors import CheckpointError, ConfigError
from charlm.files import locked
from tests.training.helpers import make_config
from tests.training.helpers import new_run as trained

BUSY = "another process is training this run"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_run_is_locked_until_its_end(tmp_path: Path) -> None:
    with new_run(tmp_path / "run"):
        with locked(tmp_path / "run", wait=False) as free:
            assert not free
        with pytest.raises(CheckpointError, match=BUSY), new_run(tmp_path / "run"):
            raise AssertionError("two processes have one folder")
        (tmp_path / "run" / LAST).touch()
    with locked(tmp_path / "run", wait=False) as free:
        assert free


def test_a_stopped_run_is_locked_before_its_checkpoint_is_read(
    tiny_text: Path, tmp_path: Path
) -> None:
    folder = trained(make_config(tiny_text), tmp_path, stop_at=1)
    with stopped_run(folder) as last:
        assert last.meta.progress.step == 1
        with pytest.raises(CheckpointError, match=BUSY), stopped_run(folder):
            raise AssertionError("two processes have one run")
    (folder / LAST).write_bytes(b"")
    with (
        locked(folder, wait=False),
        pytest.raises(CheckpointError, match=BUSY),  # not that the file is damaged
        stopped_run(folder),
    ):
        raise AssertionError("the checkpoint was read")


def test_a_run_that_does_not_start_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError), new_run(tmp_path / "there" / "a" / "b"):
        raise ZeroDivisionError
    assert not names(tmp_path / "there")
    with new_run(tmp_path / "there" / "a"):
        (tmp_path / "there" / "a" / LAST).touch()
    assert names(tmp_path / "there" / "a") == {LAST}


@pytest.mark.parametrize("content", ["", None])
def test_a_folder_with_an_empty_or_generated_config_is_used(
    content: str | None, tiny_text: Path, tmp_path: Path
) -> None:
    generated = to_yaml(make_config(tiny_text))
    (tmp_path / CONFIG).write_text(generated if content is None else content, encoding="utf-8")
    (tmp_path / TEMPORARY).write_text("left by a killed run")
    with new_run(tmp_path):
        pass


@pytest.mark.parametrize(
    "own", [lambda it: it[: len(it) // 3], lambda it: it[:-99], lambda it: "# mine\n" + it]
)
def test_another_config_is_kept_and_the_advice_helps(
    own: Callable[[str], str], tiny_text: Path, tmp_path: Path
) -> None:
    (tmp_path / CONFIG).write_text(own(to_yaml(make_config(tiny_text))), encoding="utf-8")
    before = (tmp_path / CONFIG).read_bytes()
    with pytest.raises(CheckpointError, match=f"{CONFIG}.*rename it"), new_run(tmp_path):
        pass
    assert (tmp_path / CONFIG).read_bytes() == before
    (tmp_path / CONFIG).rename(tmp_path.parent / "elsewhere.yaml")
    with new_run(tmp_path):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o000)
    for use in (new_run, stopped_run):
        with pytest.raises(CheckpointError, match="Permission denied"), use(folder):
            pass


# --- config.yaml ------------------------------------------------------------------------------


def test_an_edited_config_is_found_and_never_overwritten(tiny_text: Path, tmp_path: Path) -> None:
    recorded, longer = make_config(tiny_text), make_config(tiny_text, "lstm", "train.max_steps=99")
    folder = tmp_path / recorded.name
    folder.mkdir()
    assert edited_config(folder, recorded) is None
    write_config(folder, recorded)
    assert load_config(folder / CONFIG) == recorded
    assert edited_config(folder, recorded) is None

    mine = "# mine\n" + to_yaml(longer)
    (folder / CONFIG).write_text(mine, encoding="utf-8")
    assert edited_config(folder, recorded) == longer
    write_config(folder, longer)  # the same settings: the comment stays
    assert (folder / CONFIG).read_text(encoding="utf-8") == mine
    write_config(folder, recorded)
    assert load_config(folder / CONFIG) == recorded
    assert (folder / "config-1.yaml").read_text(encoding="utf-8") == mine


def test_a_config_that_cannot_be_read_is_not_ignored(tiny_text: Path, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("train: {max_steps: many}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"max_steps.*rename this file to resume"):
        edited_config(tmp_path, make_config(tiny_text))


# --- files ------------------------------------------------------------------------------------


def test_a_config_is_not_taken_for_an_edited_one_because_the_disk_fails(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    config = make_config(tiny_text, "lstm")
    write_config(tmp_path, config)
    before = (tmp_path / CONFIG).read_bytes()
    changed = config.model_copy(update={"name": "other"})
    for where, name in ((Path, "read_bytes"), (os, "open")):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, fail)
            with pytest.raises(CheckpointError, match="Input/output error"):
                write_config(tmp_path, changed)
        assert [path.name for path in tmp_path.iterdir()] == [CONFIG]
        assert (tmp_path / CONFIG).read_bytes() == before


def test_only_files_that_charlm_made_are_removed(tmp_path: Path) -> None:
    ours = [kept_checkpoint(tmp_path, step) for step in (2, 4, 6, 123456789, 8)]
    others = ["step-00000002-copy.safetensors", "step-2.safetensors", "step-0000000002.safetensors"]
    others += ["step-00000002.safetensors.bak", "step-٠٠٠٠٠٠٠٢.safetensors"]
    for path in (*ours, *(tmp_path / name for name in others)):
        path.touch()
    remove_kept(tmp_path, 6, 2)  # resumed from step 4: those of 8 and later were abandoned
    assert names(tmp_path) == {*others, *(path.name for path in ours[1:])}
    remove_kept(tmp_path, 123456789, 1)
    assert names(tmp_path) == {*others, "step-123456789.safetensors"}


def test_a_file_is_written_whole_and_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / TEMPORARY).symlink_to(tmp_path / "elsewhere")
    write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "elsewhere").read_text() == "mine"
    assert names(tmp_path) == {"a", "elsewhere"}
