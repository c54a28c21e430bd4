"""Settings in and out: YAML and `KEY=VALUE` to a Config and back. defaults < YAML < overrides."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from charlm.config.explain import explain
from charlm.config.reference import settings
from charlm.config.run import Config
from charlm.errors import ConfigError

_Group = TypeVar("_Group", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 3e-4 is a number, `on` and `off` are words, a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *base`
                continue
            key = self.construct_object(key_node)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes every word that this loader, or YAML 1.1, would read as something else."""


_NUMBERS_AND_TRUTHS = {  # as YAML 1.2's core schema has them: no 0o10 by 010, no 12:30, no `on`
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "float": (
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
        "-+.0123456789",
    ),
}
_Loader.yaml_implicit_resolvers = {  # tried by first letter
    letter: [pair for pair in pairs if pair[0].endswith((":null", ":merge"))]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _letters) in _NUMBERS_AND_TRUTHS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_letters))


def parse_yaml(text: str, where: str) -> Any:
    """The value `text` stands for.

    Raises:
        ConfigError: it is not YAML; the message names `where`, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{place}: not valid YAML: {problem}") from error


def load_config(
    path: Path,
    overrides: Iterable[str] = (),
    name: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Config:
    """The Config of a YAML file with `KEY=VALUE` overrides on top; `name` and `data` override the
    run's name and settings of its data before those.

    Raises:
        ConfigError: the file cannot be read, or one line for each wrong setting.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this config: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from error
    raw = parse_yaml(text, str(path))
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a config is a mapping such as `data: ...`, not {raw!r:.40}")
    settings: dict[str, Any] = {"name": path.stem} | raw
    if data and isinstance(settings.get("data") or {}, dict):
        settings["data"] = {**(settings.get("data") or {}), **data}
    return parse_config(settings, overrides, name, where=str(path))


def parse_config(
    raw: Mapping[str, Any], overrides: Iterable[str] = (), name: str | None = None, where: str = ""
) -> Config:
    """The Config of nested dictionaries with `KEY=VALUE` overrides on top.

    Raises:
        ConfigError: one line for each wrong setting, headed by `where`.
    """
    merged = copy.deepcopy(dict(raw))
    for override in overrides:
        _set(merged, override)
    if name is not None:
        merged["name"] = name
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise _refusal(where, explain(error)) from error


def _refusal(where: str, problems: list[str]) -> ConfigError:
    """One line for one problem; for more, a heading and a line each."""
    heading = f"{where}: " if where else ""
    if len(problems) == 1:
        return ConfigError(heading + problems[0])
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"{heading}{len(problems)} problems:{lines}")


def updated(group: _Group, **changes: Any) -> _Group:
    """A copy of a group with those settings changed that are not None.

    Raises:
        ConfigError: one line for each wrong one, named as an option of the command line.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(group).model_validate(group.model_dump() | given)
    except ValidationError as error:
        raise _refusal("", [f"--{line.replace('_', '-')}" for line in explain(error)]) from error


def _set(raw: dict[str, Any], override: str) -> None:
    """Put one `a.b=value` into nested dictionaries."""
    dotted, equals, text = override.partition("=")
    *groups, leaf = dotted.strip().split(".")
    if not equals or not leaf or not all(groups):
        raise ConfigError(f"--set {override}: write KEY=VALUE, such as train.max_steps=500")
    for group in groups:
        inner = raw.setdefault(group, {})
        if inner is None:
            inner = raw[group] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: {group} is not a group of settings")
        raw = inner
    raw[leaf] = _value(dotted.strip(), text)


def _value(key: str, text: str) -> Any:
    """What `text` stands for: itself where a setting wants text, else what YAML makes of it."""
    wanted = next((setting.type for setting in settings() if setting.key == key), "")
    a_list = "list" in wanted and text.startswith("[") and text.endswith("]")
    null = "null" in wanted and text == "null"
    if wanted.startswith("str") and not (a_list or null):
        return text
    return parse_yaml(text, f"--set {key}")


def to_yaml(config: Config) -> str:
    """The resolved settings as YAML; load_config reads it back to an equal Config."""
    return write_yaml(config.model_dump(mode="json"))


def write_yaml(settings: Mapping[str, Any]) -> str:
    """Nested dictionaries as YAML, in their own order."""
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def to_schema() -> str:
    """The JSON Schema (2020-12) of a config file, for editors.

    `name` is filled in from the file's own name, so a file need not have it.
    """
    schema = Config.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    return json.dumps({"title": "charlm config"} | schema, indent=2) + "\n"
