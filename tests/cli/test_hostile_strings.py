"""Strings of a stranger's file reach the terminal as visible characters, and one line stays one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from charlm.config.files import load_config
from tests.conftest import Charlm, Result, TinyConfig, write_yaml
from tests.test_visible import is_hidden

NASTY = "\x1b]0;owned\x07\x1b[2J\r\nx: y\t\x9b1m\u202e\u2028\u2029\u200b\udc80\ud800"
RUN = Path("checkpoints") / "lstm"


def assert_visible(result: Result) -> None:
    for line in (result.out + result.err).split("\n"):
        assert not any(map(is_hidden, line)), line
    assert "Traceback" not in result.err
    if result.status:
        (line,) = result.err.splitlines()
        assert line.startswith("charlm")


def strings(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all strings in nested dictionaries and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from strings(value, (*path, key))
        elif isinstance(value, str):
            yield (*path, key)


def nastier(tree: Any, path: tuple[str | int, ...], nasty: str) -> Any:
    """A copy of `tree` in which the string at a path ends with something nasty."""
    key, *rest = path
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[key] = nastier(copy[key], tuple(rest), nasty) if rest else copy[key] + nasty
    return copy


def rewrite(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the metadata of all checkpoints of a run."""
    for file in run.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            meta = json.loads(opened.metadata()["charlm"])
        save_file(load_file(file), file, {"charlm": json.dumps(change(meta))})


def meta_of(run: Path) -> dict[str, Any]:
    with safe_open(run / "last.safetensors", "pt") as opened:
        return dict(json.loads(opened.metadata()["charlm"]))


VERBS = (
    "info checkpoints/lstm",
    "info checkpoints/lstm --json",
    "eval checkpoints/lstm --device cpu",
    "inspect checkpoints/lstm --device cpu --length 50 --force",
    "train --resume --name lstm --device cpu --set train.max_steps=7",
    "train --config lstm.yaml --name new --device cpu --init-from checkpoints/lstm",
)
NASTIES = {"all": NASTY, "UTF-8": NASTY[:-2]}


@pytest.mark.parametrize("nasty", NASTIES.values(), ids=NASTIES)
@pytest.mark.parametrize("command", VERBS)
def test_a_checkpoint(charlm: Charlm, workplace: Path, command: str, nasty: str) -> None:
    original = meta_of(RUN)
    for path in strings(original):
        rewrite(RUN, lambda _, path=path: nastier(original, path, nasty))  # type: ignore[misc]
        assert_visible(charlm(*command.split()))
