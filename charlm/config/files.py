"""Settings in and out: YAML and `KEY=VALUE` to a Config, problems to plain words, fields to tables.

defaults < YAML < overrides. Nothing here knows what a setting means; that is config.py's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from charlm.config.explain import explain
from charlm.config.run import Config
from charlm.errors import ConfigError

_Group = TypeVar("_Group", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 3e-4 is a number, `on` and `off` are words, a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
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


# The resolvers are tried by first letter: drop YAML 1.1's booleans and floats, add YAML 1.2's.
_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
    ]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


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


def load_config(path: Path, overrides: Iterable[str] = (), name: str | None = None) -> Config:
    """The Config of a YAML file with `KEY=VALUE` overrides on top; `name` overrides the run's name.

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
    return parse_config({"name": path.stem} | raw, overrides, name, where=str(path))


def parse_config(
    raw: Mapping[str, Any], overrides: Iterable[str] = (), name: str | None = None, where: str = ""
) -> Config:
    """The Config of nested dictionaries with `KEY=VALUE` overrides on top.

    Raises:
        ConfigError: one line for each wrong setting, headed by `where`.
    """
    merged = json.loads(json.dumps(raw, default=str))  # a deep copy, of plain values only
    for override in overrides:
        _set(merged, override)
    if name is not None:
        merged["name"] = name
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        problems = explain(error)
        heading = f"{where}: " if where else ""
        if len(problems) == 1:
            raise ConfigError(heading + problems[0]) from error
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{heading}{len(problems)} problems:{lines}") from error


def updated(group: _Group, **changes: Any) -> _Group:
    """A copy of a group with those settings changed that are not None.

    Raises:
        ConfigError: one line for each wrong one, named as an option of the command line.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(group).model_validate(group.model_dump() | given)
    except ValidationError as error:
        problems = [f"--{line.replace('_', '-')}" for line in explain(error)]
        raise ConfigError("\n".join(problems)) from error


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
    raw[leaf] = parse_yaml(text, f"--set {dotted}")


def to_yaml(config: Config) -> str:
    """The resolved settings as YAML; load_config reads it back to an equal Config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def to_schema() -> str:
    """The JSON Schema (2020-12) of a config file, for editors.

    `name` is filled in from the file's own name, so a file need not have it.
    """
    schema = Config.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    return json.dumps({"title": "charlm config"} | schema, indent=2) + "\n"
