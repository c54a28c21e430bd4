"""The list of all settings: in the schema, the reference, the shipped configs and the code."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charlm.config.files import load_config, to_schema
from charlm.config.reference import Setting, reference, settings
from charlm.config.yaml_io import parse_yaml
from tests.conftest import ROOT

SETTINGS = list(settings())
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))
FIRST_LINE = "# yaml-language-server: $schema=./schema.json"
SCHEMA: dict[str, Any] = json.loads(to_schema())


def name_of(thing: Setting | Path) -> str:
    return thing.stem if isinstance(thing, Path) else "-".join([thing.key, *thing.only])


# --- settings --------------------------------------------------------------------------------

PROMISED = """
data.path data.val_fraction
model.kind model.n_layer model.hidden_size model.n_embd model.n_head model.context model.dropout
train.batch_size train.seq_len train.max_steps train.max_epochs train.max_seconds train.seed
train.save_every train.precision train.optimizer.kind train.optimizer.lr train.schedule.kind
eval.every eval.sample_every name sample.prompt sample.temperature
"""


def test_the_public_names_exist() -> None:
    assert set(PROMISED.split()) <= {setting.key for setting in SETTINGS}


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_every_setting_has_a_description(setting: Setting) -> None:
    assert len(setting.meaning) > 5
    assert setting.type
    assert setting.default or setting.key in ("name", "data.path")


def attributes_read(folder: Path) -> set[str]:
    """The names that the source reads as `x.name` or in a pattern `Class(name=...)`.

    The package config itself is not searched.
    """
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        if "config" not in path.relative_to(folder).parts:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    found.add(node.attr)
                elif isinstance(node, ast.MatchClass):
                    found.update(node.kwd_attrs)
    return found


def test_every_setting_is_read_outside_the_config() -> None:
    read = attributes_read(ROOT / "charlm")
    dead = [setting.key for setting in SETTINGS if setting.key.split(".")[-1] not in read]
    assert not dead


# --- schema ----------------------------------------------------------------------------------


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return dict(SCHEMA["$defs"][node["$ref"].rpartition("/")[2]])
    return node


def nodes(node: dict[str, Any], keys: list[str]) -> Iterator[dict[str, Any]]:
    """The nodes of the schema for a dotted name, one per kind that has it."""
    node = resolved(node)
    if not keys:
        yield node
        return
    for choice in node.get("oneOf", [node]):
        properties = resolved(choice).get("properties", {})
        if keys[0] in properties:
            yield from nodes(properties[keys[0]], keys[1:])


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_the_schema_has_every_setting_with_its_meaning(setting: Setting) -> None:
    found = list(nodes(SCHEMA, setting.key.split(".")))
    assert setting.meaning in [node.get("description") for node in found]


def test_the_schema_refuses_unknown_keys_and_requires_only_the_text() -> None:
    groups = [node for node in (SCHEMA, *SCHEMA["$defs"].values()) if "properties" in node]
    assert len(groups) > 10
    assert all(group["additionalProperties"] is False for group in groups)
    assert SCHEMA["required"] == ["data"]
    assert SCHEMA["$defs"]["DataConfig"]["required"] == ["path"]


def test_the_schema_has_only_settings() -> None:
    def leaves(node: dict[str, Any], prefix: str) -> Iterator[str]:
        for choice in resolved(node).get("oneOf", [node]):
            for key, inner in resolved(choice).get("properties", {}).items():
                inside = resolved(inner)
                if "properties" in inside or "oneOf" in inside:
                    yield from leaves(inner, f"{prefix}{key}.")
                else:
                    yield prefix + key

    assert set(leaves(SCHEMA, "")) == {setting.key for setting in SETTINGS}


# --- shipped files ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=name_of)
def test_a_shipped_config_loads_and_names_its_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0] == FIRST_LINE
    config = load_config(path)
    assert config.name == path.stem
    assert config.train.max_seconds is None  # else a repeated run would not be bit-identical
    for key in dotted(parse_yaml(text, str(path))):
        assert list(nodes(SCHEMA, key.split("."))), f"{key} is not in the schema"


def dotted(tree: dict[str, Any]) -> Iterator[str]:
    for key, value in tree.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner in dotted(value))


def test_the_promised_configs_are_shipped() -> None:
    promised = {"quickstart", "char-rnn", "nanogpt-cpu", "nanogpt"}
    promised |= {f"shakespeare-{kind}" for kind in ("rnn", "gru", "lstm", "mlp", "gpt")}
    assert promised <= {path.stem for path in SHIPPED}


def shipped_text(name: str) -> str:
    path = ROOT / "configs" / name
    if not path.exists():
        pytest.skip(f"there is no {path}")
    return path.read_text(encoding="utf-8")


def test_the_shipped_schema_is_up_to_date() -> None:
    assert shipped_text("schema.json") == to_schema()


def test_the_shipped_reference_is_up_to_date() -> None:
    assert reference() in shipped_text("README.md")


def test_the_reference_has_a_row_for_every_setting() -> None:
    rows = reference().splitlines()
    assert len(rows) == len(SETTINGS) + 2
    for setting, row in zip(SETTINGS, rows[2:], strict=True):
        assert row.startswith(f"| `{setting.key}`")
        assert all(kind in row for kind in setting.only)
        assert row.count("|") - row.count("\\|") == 5
