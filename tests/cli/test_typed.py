"""What people type: texts and configs without an option, names of runs, short options."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import find_checkpoint, find_run, read_meta
from charlm.cli import train_options
from charlm.cli.arguments import make_parser
from charlm.config import Config
from charlm.config.files import is_config, parse_config
from charlm.config.reference import settings
from charlm.errors import CheckpointError
from tests.conftest import Charlm

RUN = Path("checkpoints") / "lstm"
TEXT = "The old king sees the fox.\n\n" * 50
SHORT = ("--steps", "2", "--hidden-size", "4", "--device", "cpu", "--threads", "1")


# --- texts and configs ------------------------------------------------------------------------


def config_of(name: str) -> Config:
    return read_meta(Path("checkpoints") / name / LAST).config


def test_a_text_and_a_config_need_no_option(charlm: Charlm, workplace: Path) -> None:
    Path("book.txt").write_text(TEXT, encoding="utf-8")
    for name, given in {
        "book": ["book.txt"],
        "config": ["lstm.yaml", "--name", "config"],
        "both": ["lstm.yaml", "book.txt", "--name", "both"],
        "three": ["book.txt", "book.txt", "--data", "book.txt", "--name", "three"],
    }.items():
        result = charlm("train", *given, *SHORT)
        assert result.status == 0, result.err
        assert f"folder  checkpoints/{name}\n" in result.out
    assert config_of("book").data.path == ("book.txt",)
    assert config_of("config").data.path == config_of("lstm").data.path
    assert config_of("both").data.path == ("book.txt",)
    assert config_of("both").train.batch_size == config_of("lstm").train.batch_size
    assert config_of("three").data.path == ("book.txt",) * 3


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", "data: {path: a}\n", True),
        ("a.yml", "# comment\n\nmodel:\n  kind: gpt\n", True),
        ("a.YAML", "{train: {max_steps: 3}}\n", True),
        ("a.yaml", "data: [1\n", True),  # broken
        ("a.yaml", "", True),
        ("a.yaml", None, True),  # does not exist
        ("a.yaml", "- milk\n- eggs: 3\n", False),
        ("a.yaml", "recipe:\n  eggs: 3\n", False),
        ("a.txt", "data: {path: a}\n", False),
        ("a", None, False),
    ],
)
def test_a_config_is_known_by_its_ending_and_its_content(
    name: str, content: str | None, expected: bool, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert is_config(tmp_path / name) is expected
    (tmp_path / "folder.yaml").mkdir()
    assert not is_config(tmp_path / "folder.yaml")


# --- short options ----------------------------------------------------------------------------


def settings_of(command: str, raw: dict[str, Any]) -> Config:
    options = make_parser().parse_args(["train", *shlex.split(command)])
    return parse_config(raw, train_options.overrides(options))


@pytest.mark.parametrize(
    ("command", "overrides"),
    [
        ("--model gru --layers 2", ["model.kind=gru", "model.n_layer=2"]),
        ("--hidden-size 8 --seq-len 9", ["model.hidden_size=8", "train.seq_len=9"]),
        (
            "--hidden-size 8 --seq-len 9 --model gpt",
            ["model.kind=gpt", "model.n_embd=8", "model.context=9"],
        ),
        (
            "--hidden-size 8 --seq-len 9 --set model.kind=gpt",
            ["model.kind=gpt", "model.n_embd=8", "model.context=9"],
        ),
        ("--dropout 0.1", ["model.input_dropout=0.1", "model.output_dropout=0.1"]),
        ("--dropout 0.1 --model gpt", ["model.kind=gpt", "model.dropout=0.1"]),
        ("--batch-size 3 --seed 4", ["train.batch_size=3", "train.seed=4"]),
        ("--lr 0.1 --optimizer sgd", ["train.optimizer.kind=sgd", "train.optimizer.lr=0.1"]),
        ("--eval-every 7 --threads 1", ["eval.every=7", "train.threads=1"]),
        ("--lr 0.1 --set train.optimizer.lr=0.2", ["train.optimizer.lr=0.2"]),
    ],
)
def test_a_short_option_sets_what_the_kind_of_model_has(command: str, overrides: list[str]) -> None:
    raw = {"name": "a", "data": {"path": "a"}, "model": {"hidden_size": 99}}
    assert settings_of(command, raw) == parse_config(raw, overrides)


@pytest.mark.parametrize(
    ("command", "limits"),
    [
        ("--steps 5", (5, None, None)),
        ("--epochs 0.5", (None, 0.5, None)),
        ("--epochs 2 --steps 5", (5, 2, None)),
        ("--steps 5 --set train.max_seconds=9", (5, None, 9)),
        ("--set train.max_steps=5", (5, 3, 60)),  # --set changes one setting only
        ("--seed 5", (None, 3, 60)),
    ],
)
def test_steps_and_epochs_replace_all_limits(command: str, limits: tuple[Any, ...]) -> None:
    raw = {"name": "a", "data": {"path": "a"}, "train": {"max_epochs": 3, "max_seconds": 60}}
    train = settings_of(command, raw).train
    assert (train.max_steps, train.max_epochs, train.max_seconds) == limits


def test_every_setting_of_a_short_option_exists() -> None:
    flags = make_parser().subparser(["train"]).flags
    assert flags.keys() <= {setting.key for setting in settings()}


# --- names of runs ----------------------------------------------------------------------------


def test_a_run_is_given_by_its_name_or_its_folder(charlm: Charlm, workplace: Path) -> None:
    for verb in (["info", "--json"], ["eval", "--device", "cpu"], ["sample", "--seed", "1"]):
        expected = charlm(*verb, RUN)
        assert expected.status == 0
        assert charlm(*verb, "lstm") == expected
    assert charlm("inspect", "lstm", "--length", 50, "--device", "cpu").status == 0
    result = charlm("train", "lstm.yaml", "--name", "b", "--init-from", "lstm", "--device", "cpu")
    assert f"weights from {RUN / BEST}" in result.err


@pytest.mark.parametrize(
    "how",
    [
        *(["--resume", "lstm"], ["--resume", RUN], ["--resume", RUN / LAST]),
        *(["--resume", f"{RUN}/"], ["--resume", "lstm", "--name", "lstm"]),
        ["--resume", "lstm", "--config", "lstm.yaml"],
        ["lstm.txt", "--resume"],
    ],
)
def test_a_run_is_resumed_by_its_name_or_its_folder(
    charlm: Charlm, workplace: Path, how: list[str | Path]
) -> None:
    shutil.copytree(RUN, "checkpoints/newer")
    shutil.copy(config_of("lstm").data.path[0], "lstm.txt")
    result = charlm("train", *how, "--steps", 7, "--device", "cpu")
    assert result.status == 0, result.err
    assert f"folder  {RUN}, from step 6" in result.out
    assert "finished at step 7" in result.out


@pytest.mark.parametrize("given", [RUN, RUN / LAST])
def test_a_run_is_no_text(charlm: Charlm, workplace: Path, given: Path) -> None:
    result = charlm("train", given)
    assert (result.status, result.out) == (2, "")
    assert f"{given}: this is a run and no text; to continue it: charlm train --r" in result.err


def test_what_is_no_run_does_not_hide_the_run_of_the_same_name(workplace: Path) -> None:
    best = RUN / BEST
    assert find_checkpoint(Path("lstm")) == best
    Path("lstm").write_text("a text", encoding="utf-8")
    assert find_checkpoint(Path("lstm")) == best
    Path("lstm").unlink()
    Path("lstm").mkdir()
    assert find_checkpoint(Path("lstm")) == best
    shutil.copy(best, Path("lstm"))  # now it is a run folder
    assert find_checkpoint(Path("lstm")) == Path("lstm") / BEST
    assert find_checkpoint(RUN) == best


def test_a_run_that_does_not_exist_is_reported_with_those_that_do(workplace: Path) -> None:
    for given, ending in {
        "lsmt": "; did you mean lstm?",
        "x": "; runs in checkpoints/: lstm",
    }.items():
        with pytest.raises(
            CheckpointError, match=f"^{given}: no such run{ending}".replace("?", r"\?")
        ):
            find_run(Path(given), Path("checkpoints"))
    with pytest.raises(CheckpointError, match=r"^x: no such run$"):
        find_run(Path("x"), Path("elsewhere"))
    for n in range(9):
        shutil.copytree(RUN, f"checkpoints/{n}")
    with pytest.raises(CheckpointError, match=r"runs in checkpoints/: 0, 1, 2, 3, 4, 5, \.\.\.$"):
        find_run(Path("x"), Path("checkpoints"))
