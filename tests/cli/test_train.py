"""`charlm train`: which run it uses, where its settings come from, and that no file is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.checkpoint.run_folder import CONFIG, stopped_run
from charlm.config.files import load_config
from tests.conftest import KINDS, ROOT, Charlm, TinyRun

RUN = Path("checkpoints") / "lstm"
CPU = ("--device", "cpu")
DEV_FD = pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs /dev/fd")
BUSY = "another process is training this run"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- one process at a time ----------------------------------------------------------------------


def test_a_text_that_arrives_late_never_replaces_another_run(
    charlm: Charlm, workplace: Path
) -> None:
    """The folder is locked before the text is read, which takes as long as the pipe is open."""
    command = [sys.executable, "-m", "charlm", "train", "--data", "-", "--name", "x", *CPU]
    text = load_config(Path("lstm.yaml")).data.path[0]
    with subprocess.Popen(
        [*command, "--set", "train.max_epochs=null", "--set", "train.max_steps=11"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as late:
        while not Path("checkpoints/x").exists() and late.poll() is None:
            time.sleep(0.01)
        result = charlm("train", "--config", "lstm.yaml", "--name", "x", *CPU)
        out, _ = late.communicate(Path(text).read_bytes())
    assert late.returncode == 0, out
    assert (result.status, result.out) == (2, "")
    assert f"checkpoints/x: {BUSY}" in result.err
    assert read_meta(Path("checkpoints/x") / LAST).progress.step == 11


@pytest.mark.parametrize("how", [["--name", "lstm"], ["--config", "lstm.yaml"], []])
def test_a_run_that_is_still_being_saved_is_not_read(
    charlm: Charlm, workplace: Path, how: list[str]
) -> None:
    with stopped_run(RUN):
        (RUN / LAST).write_bytes(b"half")  # must not be read
        result = charlm("train", "--resume", *how, *CPU)
    assert result.status == 2
    assert f"{RUN}: {BUSY}" in result.err


@pytest.mark.parametrize("mistake", [["--data", "missing.txt"], ["--init-from", "missing"]])
def test_a_run_that_cannot_start_leaves_no_folder(
    charlm: Charlm, workplace: Path, mistake: list[str]
) -> None:
    before = sorted(workplace.rglob("*"))
    assert charlm("train", "--config", "lstm.yaml", "--name", "new", *mistake).status == 2
    assert sorted(workplace.rglob("*")) == before


def test_a_file_with_the_name_of_a_setting_is_a_text(charlm: Charlm, workplace: Path) -> None:
    text = load_config(Path("lstm.yaml")).data.path[0]
    Path("train.seed=7").write_bytes(Path(text).read_bytes())
    command = ("train", "--config", "lstm.yaml", "train.seed=7", "--name", "new", *CPU)
    assert charlm(*command).status == 0
    Path("train.seed=7").unlink()
    assert "write --set train.seed=7" in charlm(*command).err


# --- a config from a pipe -----------------------------------------------------------------------


@contextmanager
def opened(how: str, content: bytes) -> Iterator[str]:
    """Open a file or a pipe without a name, as a shell does for `<(...)` and `<`; yields a path.

    Args:
        how: "pipe", "file", "pipe as stdin" or "file as stdin".
    """
    if how.startswith("pipe"):
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
    else:
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            file.seek(0)
            reading = os.dup(file.fileno())
    usual = os.dup(0)
    if how.endswith("stdin"):
        os.dup2(reading, 0)
    try:
        yield "/dev/stdin" if how.endswith("stdin") else f"/dev/fd/{reading}"
    finally:
        os.dup2(usual, 0)
        os.close(usual)
        os.close(reading)


@DEV_FD
@pytest.mark.parametrize("how", ["pipe", "pipe as stdin"])
@pytest.mark.parametrize(
    ("options", "end"),
    [("--name new", "finished at step 6"), ("--resume --set train.max_steps=8", "at step 8")],
)
def test_a_config_is_read_once_so_it_may_be_a_pipe(
    charlm: Charlm, workplace: Path, how: str, options: str, end: str
) -> None:
    with opened(how, Path("lstm.yaml").read_bytes()) as path:
        ended = charlm("train", "--device", "cpu", *options.split(), "--config", path)
    assert ended.status == 0, ended.err
    assert end in ended.out


@DEV_FD
@pytest.mark.parametrize("how", ["pipe", "file as stdin", "file"])
@pytest.mark.parametrize("verb", ["train --device cpu --config", "config check"])
def test_a_config_that_is_not_a_file_does_not_name_the_run(
    charlm: Charlm, workplace: Path, how: str, verb: str
) -> None:
    lines = Path("lstm.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    content = "".join(it for it in lines if not it.startswith("name:")).encode()
    before = sorted(workplace.rglob("*"))
    with opened(how, content) as path:
        ended = charlm(*verb.split(), path)
    assert (ended.status, ended.out) == (2, "")
    found = re.fullmatch(
        r"charlm: /dev/\S+: name: missing; only a file gives its name to the run, so write "
        r"`name: NAME` into the config, or give (.*NAME)\n",
        ended.err,
    )
    assert found
    assert sorted(workplace.rglob("*")) == before
    option = found[1].replace("NAME", "new").split()
    with opened(how, content) as path:
        assert charlm(*verb.split(), path, *option).status == 0


# --- a config.yaml that the user has edited -----------------------------------------------------


def edit(old: str, new: str) -> None:
    text = (RUN / CONFIG).read_text(encoding="utf-8")
    assert old in text
    (RUN / CONFIG).write_text(text.replace(old, new), encoding="utf-8")


def test_an_edited_config_is_used_where_it_may_change(charlm: Charlm, workplace: Path) -> None:
    edit("max_steps: 6", "max_steps: 9  # longer")
    result = charlm("train", "--resume", *CPU)
    assert result.status == 0
    assert f"note: {RUN / CONFIG} was edited: train.max_steps is 9, was 6" in result.err
    assert read_meta(RUN / LAST).progress.step == 9
    assert "# longer" in (RUN / CONFIG).read_text(encoding="utf-8")
    assert "was edited" not in charlm("train", "--resume", *CPU).err


def test_an_edited_config_that_changes_what_is_computed_is_refused(
    charlm: Charlm, workplace: Path
) -> None:
    edit("hidden_size: 16", "hidden_size: 32")
    before = contents(RUN)
    result = charlm("train", "--resume", *CPU)
    assert result.status == 2
    assert f"{RUN / CONFIG} was edited: model.hidden_size is 32, was 16" in result.err
    assert "a resumed run cannot change model.hidden_size (16, now 32)" in result.err
    assert contents(RUN) == before


def test_an_edited_config_that_is_overridden_is_kept(charlm: Charlm, workplace: Path) -> None:
    edit("max_steps: 6", "max_steps: 9  # longer")
    edited = (RUN / CONFIG).read_bytes()
    result = charlm("train", "--resume", "--set", "train.max_steps=7", *CPU)
    assert result.status == 0
    assert load_config(RUN / CONFIG).train.max_steps == 7
    assert (RUN / "config-1.yaml").read_bytes() == edited


def test_a_config_that_cannot_be_read_stops_a_resume_and_the_advice_helps(
    charlm: Charlm, workplace: Path
) -> None:
    edit("max_steps: 6", "max_steps: 6x")
    result = charlm("train", "--resume", *CPU)
    assert result.status == 2
    assert "rename this file to resume with the settings of the checkpoint" in result.err
    (RUN / CONFIG).rename(RUN / "broken.yaml")
    assert charlm("train", "--resume", *CPU).status == 0


def test_an_empty_config_is_written_again(charlm: Charlm, workplace: Path) -> None:
    (RUN / CONFIG).write_bytes(b"")
    assert charlm("train", "--resume", *CPU).status == 0
    assert load_config(RUN / CONFIG) == read_meta(RUN / LAST).config


def test_another_optimizer_is_named_when_a_run_is_resumed(charlm: Charlm, workplace: Path) -> None:
    result = charlm("train", "--resume", "--set", "train.optimizer.kind=sgd", *CPU)
    assert result.status == 2
    assert "cannot change train.optimizer.kind ('adamw', now 'sgd')" in result.err


# --- another text -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_goes_on_with_another_text_in_one_command(
    kind: str, charlm: Charlm, workplace: Path, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("new.txt").write_text("Another text, [with brackets].\n" * 60, encoding="utf-8")
    old = tiny_run(kind)
    short = ("--set", "train.max_epochs=null", "--set", "train.max_steps=11")
    with monkeypatch.context() as patched:  # its size and its length are known
        patched.setattr("charlm.training.prepare.measure_speed", None)
        result = charlm("train", "--data", "new.txt", "--init-from", old, *short, *CPU)
    assert result.status == 0, result.err
    before, after = (read_meta(it / LAST).config for it in (old, Path("checkpoints/new")))
    assert after.model == before.model
    assert after.train.optimizer == before.train.optimizer
    assert f"weights from {old}" in result.err
