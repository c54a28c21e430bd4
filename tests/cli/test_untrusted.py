"""What a checkpoint names is opened only if it is a regular file, and only where it is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.conftest import Charlm

CPU = ("--device", "cpu")
RUN = Path("checkpoints") / "lstm" / "best.safetensors"
OTHER = "other.safetensors"
SAMPLE = ("sample", OTHER, "--length", "20", "--seed", "1", "--novelty")


def write_checkpoint(data: dict[str, Any], sha256: str = "0" * 64) -> None:
    """Write a copy of the run's checkpoint with other paths of its texts and another hash."""
    with safe_open(RUN, "pt") as file:
        metadata = file.metadata()
    meta = json.loads(metadata["charlm"])
    meta["config"]["data"] |= data
    meta["corpus"]["sha256"] = sha256
    save_file(load_file(RUN), OTHER, metadata | {"charlm": json.dumps(meta)})


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """A test that waits for a pipe fails, and does not hang."""

    def stop(*_: object) -> None:
        raise TimeoutError

    usual = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, usual)


@pytest.fixture
def here(workplace: Path) -> Iterator[Path]:
    """A working directory with a pipe, and a limit of time."""
    os.mkfifo("pipe")
    Path("mine.txt").write_text("The fox sees the fox.\n" * 40, encoding="utf-8")
    with time_limit(60):
        yield workplace


@contextmanager
def writing(path: str, text: bytes) -> Iterator[None]:
    writer = threading.Thread(target=Path(path).write_bytes, args=(text,))
    writer.start()
    yield
    writer.join()


@pytest.mark.parametrize(
    ("command", "key", "name"),
    [
        (("eval", OTHER, *CPU), "path", "/dev/zero"),
        (("eval", OTHER, *CPU), "path", "/dev/stdin"),
        (("eval", OTHER, *CPU), "path", "-"),
        (("eval", OTHER, *CPU), "val_path", "pipe"),
        (("eval", OTHER, "--split", "test", *CPU), "test_path", "pipe"),
        (("inspect", OTHER, *CPU), "path", "-"),
        (SAMPLE, "path", "/dev/zero"),
        (SAMPLE, "path", "pipe"),
    ],
)
def test_what_is_not_a_regular_file_is_not_opened(
    charlm: Charlm, here: Path, command: tuple[str, ...], key: str, name: str
) -> None:
    settings: dict[str, Any] = {key: name}
    if key != "path":
        settings[key.replace("path", "fraction")] = 0.0
    write_checkpoint(settings)
    result = charlm(*command)
    assert (result.status, result.out[20:]) == ((0, "") if "sample" in command else (2, ""))
    shown = "standard input" if name == "-" else name
    note = "note: novelty cannot be measured without the training text: "
    assert result.err == (
        f"charlm: {note * ('sample' in command)}{shown}: not a regular file, and only the "
        "checkpoint names it, so it is not opened; if it is the text, give it to eval or to a "
        f"resumed run with --data {name}\n"
    )


def test_the_hint_can_be_followed(charlm: Charlm, here: Path, tiny_text: Path) -> None:
    """The text of a pipe is then in the cache, where its hash finds it."""
    with safe_open(RUN, "pt") as file:
        sha256 = json.loads(file.metadata()["charlm"])["corpus"]["sha256"]
    write_checkpoint({"path": "pipe"}, sha256)
    os.environ["CHARLM_CACHE"], usual = str(here / "cache"), os.environ["CHARLM_CACHE"]
    try:
        assert "not a regular file" in charlm(*SAMPLE).err
        assert "not a regular file" in charlm("eval", OTHER, *CPU).err
        with writing("pipe", tiny_text.read_bytes()):
            assert charlm("eval", OTHER, "--data", "pipe", *CPU).status == 0
        assert charlm(*SAMPLE).err.startswith("charlm: longest passage copied")
        assert charlm("eval", OTHER, *CPU).status == 0
    finally:
        os.environ["CHARLM_CACHE"] = usual


@pytest.mark.parametrize("name", ["/dev/zero", "mine.txt"])
def test_a_text_that_the_user_names_is_the_only_one_that_is_opened(
    charlm: Charlm, here: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy("mine.txt", "own.txt")
    cache = here / "cache"
    monkeypatch.setenv("CHARLM_CACHE", str(cache))
    write_checkpoint({"path": name})
    for command in (("eval", "--data", "own.txt"), ("inspect", "--json", "--text", "own.txt")):
        result = charlm(command[0], OTHER, *command[1:], *CPU)
        assert (result.status, result.err) == (0, "")
    found = json.loads(result.out)
    assert (found["ngrams"], found["source"]) == ([], "own.txt")
    assert found["ngram_text"] == (
        "the training text is not available: it is not in the cache; charlm eval reads it again"
    )
    texts = [path.name for path in (cache / "encoded").iterdir() if path.name != "seen"]
    assert len([name for name in texts if not name.startswith(".")]) == 1


def test_another_text_is_compared_with_the_training_text_in_the_cache(
    charlm: Charlm, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = ("inspect", RUN, "--text", "mine.txt", "--json", *CPU)
    monkeypatch.setenv("CHARLM_CACHE", str(here / "cache"))
    assert json.loads(charlm(*inspect).out)["ngrams"] == []
    assert charlm("eval", RUN, *CPU).status == 0  # as the page says
    assert json.loads(charlm(*inspect).out)["ngrams"]


def test_notices_about_a_text_are_printed(charlm: Charlm, here: Path) -> None:
    (here / "folder").mkdir()
    shutil.copy("mine.txt", "folder")
    (here / "folder" / "link").symlink_to(here)
    notice = (
        "charlm: note: folder: links to folders are not followed (1, such as folder/link); to read "
        "one, name it in data.path\n"
    )
    for command in (
        ("eval", RUN, "--data", "folder", *CPU),
        ("inspect", RUN, "--text", "folder", *CPU),
        ("data", "stats", "folder"),
        ("data", "stats", "folder", "--json"),
        ("train", "--data", "folder", "--set", "train.max_steps=20", *CPU),
    ):
        result = charlm(*command)
        assert (result.status, notice in result.err) == (0, True), result.err
