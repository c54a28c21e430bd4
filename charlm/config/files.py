"""Read settings from YAML and `KEY=VALUE` overrides, and write them as YAML.

Overrides have priority over YAML, and YAML has priority over the defaults.
"""

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
from charlm.visible import visible

_Group = TypeVar("_Group", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number, `on` and `off` are strings, and duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *base`
                continue
            key = self.construct_object(key_node)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a string", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes every string that this loader or YAML 1.1 would read as another type."""

    def represent_str(self, value: str) -> yaml.ScalarNode:
        """Characters that are not visible need double quotes, in which they can be escaped."""
        hidden = visible(value, keep="\n") != value
        return self.represent_scalar("tag:yaml.org,2002:str", value, style='"' if hidden else None)


_Dumper.add_representer(str, _Dumper.represent_str)
_NUMBERS_AND_BOOLEANS = {  # YAML 1.2 core schema: 010 is not octal, 12:30 and `on` are strings
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "float": (
        re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
        "-+.0123456789",
    ),
}
_Loader.yaml_implicit_resolvers = {  # indexed by the first character
    letter: [pair for pair in pairs if pair[0].endswith((":null", ":merge"))]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _letters) in _NUMBERS_AND_BOOLEANS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_letters))


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text.

    Args:
        where: name of the source, for the message.

    Raises:
        ConfigError: the text is not valid YAML; the message gives `where`, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except ValueError as error:  # an integer with more digits than Python converts
        raise ConfigError(f"{where}: not valid YAML: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        position = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{position}: not valid YAML: {problem}") from error


def load_config(
    path: Path,
    overrides: Iterable[str] = (),
    name: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Config:
    """Return the Config of a YAML file.

    Args:
        overrides: `KEY=VALUE` settings, which have priority over the file and over `data`.
        name: name of the run, which has priority over all others.
        data: settings of the group `data`, which have priority over the file.

    Raises:
        ConfigError: the file cannot be read, or it is wrong; one line per wrong setting.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this config: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8"
        ) from error
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
    """Return the Config of nested dictionaries.

    Args:
        overrides: `KEY=VALUE` settings, which have priority over `raw`.
        name: name of the run, which has priority over all others.
        where: name of the source, for the message.

    Raises:
        ConfigError: settings are wrong; one line per wrong setting, and `where` at the start.
    """
    merged = copy.deepcopy(dict(raw))
    for override in overrides:
        _set(merged, override)
    if name is not None:
        merged["name"] = name
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise _config_error(where, explain(error)) from error


def _config_error(where: str, problems: list[str]) -> ConfigError:
    """One problem makes one line. Several make a heading and one line each."""
    heading = f"{where}: " if where else ""
    if len(problems) == 1:
        return ConfigError(heading + problems[0])
    return ConfigError(f"{heading}{len(problems)} problems:", *problems)


def updated(group: _Group, **changes: Any) -> _Group:
    """Return a copy of a group with other values.

    Args:
        changes: the new values; None leaves a setting as it is.

    Raises:
        ConfigError: values are wrong; one line per value, named like its command-line option.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(group).model_validate(group.model_dump() | given)
    except ValidationError as error:
        raise _config_error(
            "", [f"--{line.replace('_', '-')}" for line in explain(error)]
        ) from error


def _set(raw: dict[str, Any], override: str) -> None:
    """Apply one override `a.b=value` to nested dictionaries, in place."""
    dotted, equals, text = override.partition("=")
    *groups, leaf = dotted.strip().split(".")
    if not equals or not leaf or not all(groups):
        raise ConfigError(f"set={override}: write KEY=VALUE, such as train.max_steps=500")
    for group in groups:
        inner = raw.setdefault(group, {})
        if inner is None:
            inner = raw[group] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"set={override}: {group} is not a group of settings")
        raw = inner
    raw[leaf] = _value(dotted.strip(), text)


def _value(key: str, text: str) -> Any:
    """Return the text itself for a setting that is a string, else its value as YAML."""
    expected = next((setting.type for setting in settings() if setting.key == key), "")
    is_list = "list" in expected and text.startswith("[") and text.endswith("]")
    is_null = "null" in expected and text == "null"
    if expected.startswith("str") and not (is_list or is_null):
        return text
    return parse_yaml(text, f"set={key}")


def to_yaml(config: Config) -> str:
    """Return all settings as YAML. `load_config` reads them back as an equal Config."""
    return write_yaml(config.model_dump(mode="json"))


def write_yaml(settings: Mapping[str, Any]) -> str:
    """Return nested dictionaries as YAML, with the keys in the given order, and all visible."""
    text = yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return visible(text, keep="\n")  # escapes only what is in double quotes


def to_schema() -> str:
    """Return the JSON Schema (2020-12) of a config file, for editors.

    `name` is not required, because its default is the name of the file.
    """
    schema = Config.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    return json.dumps({"title": "charlm config"} | schema, indent=2) + "\n"
