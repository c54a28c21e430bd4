"""A config may come from anywhere: whatever is in it, it loads or gives printable lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from charlm.config import Config
from charlm.config.explain import MAX_PROBLEMS
from charlm.config.files import load_config, parse_config, to_yaml
from charlm.config.suggest import LAPTOP, choose, suggest
from charlm.errors import ConfigError
from tests.config.hostile import KEYS, hostile_file, hostile_override

CHUNK = 100
MAX_LINE = 1000  # characters; the longest are those that explain data.path
each_chunk = pytest.mark.parametrize("chunk", range(6))


def check_message(message: str) -> None:
    """One printable line, or a heading and one printable line for each problem."""
    heading, *lines = message.splitlines()
    assert not lines or "problems" in heading
    assert len(lines) <= 3 * MAX_PROBLEMS
    for line in (heading, *lines):
        assert line.isprintable(), line
        assert 0 < len(line) < MAX_LINE, line


def check_config(config: Config, folder: Path) -> None:
    """What was accepted can be written, and is read back equal."""
    (folder / "again.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(folder / "again.yaml") == config


@each_chunk
def test_a_hostile_file_loads_or_is_refused_in_printable_lines(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "a.yaml"
    refused = 0
    for seed in range(CHUNK * chunk, CHUNK * (chunk + 1)):
        path.write_bytes(hostile_file(seed))
        try:
            config = load_config(path)
        except ConfigError as error:
            check_message(str(error))
            refused += 1
        else:
            check_config(config, tmp_path)
    assert refused > CHUNK / 2  # most mutations are not harmless


@each_chunk
def test_a_hostile_override_is_applied_or_refused_in_printable_lines(
    tmp_path: Path, chunk: int
) -> None:
    for seed in range(CHUNK * chunk, CHUNK * (chunk + 1)):
        override = hostile_override(seed)
        try:
            config = parse_config({"name": "a", "data": {"path": "a"}}, [override])
        except ConfigError as error:
            check_message(str(error))
        else:
            check_config(config, tmp_path)


@pytest.mark.parametrize("suffix", ["", ".kind", ".x", ".kind.kind", ".0", ".kind.x", ".path.kind"])
@pytest.mark.parametrize("key", KEYS)
def test_an_override_of_a_suggestion_is_applied_or_refused(key: str, suffix: str) -> None:
    overrides = [f"{key}{suffix}=gpt"]
    settings = suggest(("a.txt",), choose("lstm", 1000, 60, LAPTOP))
    try:
        parse_config(settings, overrides)
    except ConfigError as error:
        check_message(str(error))


# --- dictionaries, such as the metadata of a checkpoint -----------------------------------------


def nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def bomb() -> list[Any]:
    """A list of 10^30 entries in a few hundred bytes."""
    entries: list[Any] = ["x"]
    for _ in range(30):
        entries = [entries] * 10
    return entries


@pytest.mark.parametrize("key", ["name", "data", "data.path", "model", "model.kind", "train.seed"])
@pytest.mark.parametrize(
    "value",
    [nested(100_000), bomb(), 10**6000, -(10**6000), "\ud800", b"\xff", {1: 2}, {"\ud800": 1}],
    ids=["deep", "bomb", "huge", "negative", "surrogate", "bytes", "key", "surrogate key"],
)
def test_any_value_in_a_dictionary_is_refused_in_printable_lines(key: str, value: object) -> None:
    raw: dict[str, Any] = {"name": "a", "data": {"path": "a"}}
    *groups, leaf = key.split(".")
    group = raw
    for name in groups:
        group = group.setdefault(name, {})
    group[leaf] = value
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    check_message(str(caught.value))


def test_only_the_first_of_many_problems_are_explained() -> None:
    raw = {"name": "a", "data": {"path": "a"}} | {f"key{i}": 1 for i in range(9999)}
    with pytest.raises(ConfigError, match=r"^9,999 problems; the first 20:\n") as caught:
        parse_config(raw)
    assert len(str(caught.value).splitlines()) == 1 + MAX_PROBLEMS
