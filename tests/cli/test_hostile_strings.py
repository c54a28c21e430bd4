"""Strings from a file reach the terminal as visible characters only, and a line stays one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from charlm.config.files import load_config
from tests.conftest import Charlm, Result
from tests.test_visible import is_hidden

NASTY = "\x1b]0;owned\x07\x1b[2J\r\nx: y\t\x9b1m\u202e\u2028\u2029\u200b"
RUN = Path("checkpoints") / "lstm"


def assert_visible(result: Result) -> None:
    """Check that a result has no hidden characters, and that an error has one line per problem."""
    for line in (result.out + result.err).split("\n"):
        assert not any(map(is_hidden, line)), line
    if result.status:
        lines = result.err.splitlines()
        heading, *problems = [line for line in lines if not line.startswith("charlm: note: ")]
        assert heading.startswith("charlm")
        assert len(problems) == (int(heading.split()[-2]) if heading.endswith("problems:") else 0)


def nastier(tree: Any, nasty: str) -> Iterator[Any]:
    """Copies of nested dictionaries and lists: in each, one string ends with `nasty`, or the first
    key of one dictionary."""
    if isinstance(tree, str):
        yield tree + nasty
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            for changed in nastier(value, nasty):
                yield [*tree[:i], changed, *tree[i + 1 :]]
    elif isinstance(tree, dict):
        yield {key + nasty * (i == 0): value for i, (key, value) in enumerate(tree.items())}
        for key, value in tree.items():
            for changed in nastier(value, nasty):
                yield tree | {key: changed}


VERBS = (
    "info checkpoints/lstm",
    "info checkpoints/lstm --json",
    "runs",
    "runs --json",
    "compare checkpoints/lstm checkpoints/lstm/best.safetensors other.safetensors",
    "sample checkpoints/lstm --length 1 --engine numpy",
    "eval checkpoints/lstm --device cpu",
    "inspect checkpoints/lstm --device cpu --length 2 --force",
    "train --resume --name lstm --device cpu",
    "train --config lstm.yaml --name new --device cpu --init-from checkpoints/lstm "
    "--set train.max_steps=1 --set eval.every=null",
)


@pytest.mark.parametrize("command", VERBS)
def test_metadata_of_a_checkpoint(charlm: Charlm, workplace: Path, command: str) -> None:
    weights = {file: load_file(file) for file in RUN.glob("*.safetensors")}
    with safe_open(RUN / "last.safetensors", "pt") as opened:
        original = json.loads(opened.metadata()["charlm"])
    original["config"]["data"]["include"] = ["*"]
    shutil.copy(RUN / "last.safetensors", "other.safetensors")
    for number, meta in enumerate(nastier(original, NASTY)):
        for file, tensors in weights.items():
            save_file(tensors, file, {"charlm": json.dumps(meta)})
        (RUN / "config.yaml").unlink(missing_ok=True)  # a line says how it differs
        result = charlm(*command.replace("new", f"new{number}").split())
        assert_visible(result if "sample" not in command else result._replace(out=""))


def test_names_of_tensors(charlm: Charlm, workplace: Path) -> None:
    for file in RUN.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        tensors = load_file(file)
        save_file({name + NASTY: value for name, value in tensors.items()}, file, metadata)
    for command in VERBS:
        assert_visible(charlm(*command.split()))


def test_a_name_of_a_file(charlm: Charlm, workplace: Path) -> None:
    text = Path(f"a{NASTY}.txt")
    text.write_bytes(b"caf\xe9 au lait " * 100)
    for command in ("data stats", "train --data", "eval --data", "info", "config check"):
        assert_visible(charlm(*command.split(), text))
    text.write_text("the fox " * 200, encoding="utf-8")
    for command in ("data stats", "data stats --json", "eval --device cpu --data", "info"):
        assert_visible(charlm(*command.split(), text))


@pytest.mark.parametrize("nasty", [NASTY, "a\udc80", "\ud800"], ids=["UTF-8", "byte", "half"])
def test_a_config(charlm: Charlm, workplace: Path, nasty: str) -> None:
    original = yaml.safe_load(charlm("config", "check", "lstm.yaml").out)
    for raw in nastier(original, nasty):
        Path("nasty.yaml").write_text(json.dumps(raw), encoding="ascii")  # JSON is YAML
        result = charlm("config", "check", "nasty.yaml")
        assert_visible(result)
        if result.status == 0:
            Path("printed.yaml").write_text(result.out, encoding="utf-8")
            assert load_config(Path("printed.yaml")) == load_config(Path("nasty.yaml"))


def test_a_config_with_many_problems(charlm: Charlm, workplace: Path) -> None:
    raw = {f"a{NASTY}": 1, "train": {f"b{NASTY}": 1, "batch_size": NASTY}}
    Path("nasty.yaml").write_text(json.dumps(raw), encoding="ascii")
    result = charlm("config", "check", "nasty.yaml")
    assert result.status == 2
    assert_visible(result)
    assert len(result.err.splitlines()) == 5


def test_an_argument(charlm: Charlm, workplace: Path) -> None:
    for command in ("train", "info", "sample --seed", "train --set", "data fetch", "--x"):
        assert_visible(charlm(*command.split(), f"a{NASTY}"))
