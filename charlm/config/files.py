"""Read settings from YAML and `KEY=VALUE` overrides, and write them as YAML.

Overrides have priority over YAML, and YAML has priority over the defaults.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from charlm.config.data import MAX_PATH, OLD_NAMES, with_new_names
from charlm.config.explain import MAX_PROBLEMS, explain
from charlm.config.kinds import drop_other_kinds, for_kind, kind_of
from charlm.config.reference import settings
from charlm.config.run import Config
from charlm.config.shown import plain, shown
from charlm.config.train import LIMITS
from charlm.config.yaml_io import parse_yaml, write_yaml
from charlm.errors import ConfigError
from charlm.files import open_at_once

MAX_BYTES = 1_000_000  # of a config file
_Group = TypeVar("_Group", bound=BaseModel)


def load_config(
    path: Path,
    overrides: Iterable[str] = (),
    name: str | None = None,
    data: Mapping[str, Any] | None = None,
    note: Callable[[str], None] | None = None,
) -> Config:
    """Return the Config of a YAML file.

    Args:
        overrides: `KEY=VALUE` settings, which have priority over the file and over `data`.
        name: name of the run, which has priority over all others. The last choice is the name of
            the file, but that of a pipe or of a file in /dev is no name for a run.
        data: settings of the group `data`, which have priority over the file.
        note: is called with a line for the user if the overrides make settings useless.

    Raises:
        ConfigError: the file cannot be read, or it is wrong; one line per wrong setting.
    """
    where = plain(str(path), MAX_PATH)
    raw = parse_yaml(_read(path, where), where)
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: a config is a mapping such as `data: ...`, not {shown(raw)}")
    is_named = path.is_file() and Path("/dev") not in path.absolute().parents
    settings: dict[str, Any] = ({"name": path.stem} if is_named else {}) | raw
    if data and isinstance(settings.get("data") or {}, dict):
        settings["data"] = {**(settings.get("data") or {}), **data}
    hint = _NAMED_AFTER_FILE if is_named else _NOT_NAMED
    return parse_config(settings, overrides, name, where, "" if "name" in raw else hint, note)


_NAMED_AFTER_FILE = (
    "; this is the name of the file, so rename it, write `name: NAME` into it, or give name=NAME"
)
_NOT_NAMED = (
    "; only a file gives its name to the run, so write `name: NAME` into the config, or give "
    "name=NAME"
)


def is_config(path: Path) -> bool:
    """Whether a path is a config and not a text: its name ends in .yaml or .yml, and it has a group
    of settings. A file that does not exist or is empty counts as a config, by its name alone."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    if not os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises an error for a long name)
        return not os.path.exists(path)  # noqa: PTH110
    with path.open("rb") as file:
        content = file.read(MAX_BYTES)
    return not content.strip() or bool(_GROUP.search(content))


_GROUP = re.compile(rb"^[ {]*(?:name|data|model|train|eval|sample)[ ]*:", re.MULTILINE)


def _read(path: Path, where: str) -> str:
    """Return the text of a config file.

    A pipe is read to its end, so that the shell's `<(...)` works. Opening it does not wait: a pipe
    that no process writes to counts as empty.

    Raises:
        ConfigError: the file cannot be read, is too large, or is not UTF-8.
    """
    try:
        with open(path, "rb", opener=open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISFIFO(mode):
                os.set_blocking(file.fileno(), True)
            elif not stat.S_ISREG(mode):
                raise ConfigError(f"{where}: this is a device, not a config file")
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{where}: cannot read this config: {reason}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{where}: not a config: it has more than {MAX_BYTES:,} bytes")
    if not content and stat.S_ISFIFO(mode):
        raise ConfigError(f"{where}: this pipe is empty; no process writes a config to it")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{where}: not UTF-8 text at byte {error.start}; save the file as UTF-8"
        ) from error


def parse_config(
    raw: Mapping[str, Any],
    overrides: Iterable[str] = (),
    name: str | None = None,
    where: str = "",
    name_hint: str = "",
    note: Callable[[str], None] | None = None,
) -> Config:
    """Return the Config of nested dictionaries.

    Args:
        overrides: `KEY=VALUE` settings, which have priority over `raw`; also `KEY|KEY=VALUE`, for
            the first key that the kind of model has.
        name: name of the run, which has priority over all others.
        where: name of the source, for the message.
        name_hint: end of the message about a wrong or missing name, if it is that of `raw`.
        note: see `load_config`.

    Raises:
        ConfigError: settings are wrong; one line per wrong setting, and `where` at the start.
    """
    merged = dict(raw)
    if "data" in merged:
        merged["data"] = with_new_names(merged["data"])
    given = list(overrides)
    kind = kind_of("model", raw, given)
    overrides = [for_kind(override, kind) for override in given]
    for line in drop_other_kinds(merged, overrides):
        if note is not None:
            note(line)
    for override in overrides:
        _set(merged, override)
    if name is not None:
        merged["name"] = name
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        is_from_raw = merged.get("name") is raw.get("name")
        problems = explain(error, {"name": name_hint} if is_from_raw else {})
        raise _config_error(where, problems, error.error_count()) from error


def _config_error(where: str, problems: list[str], errors: int) -> ConfigError:
    """One problem makes one line. Several make a heading and one line each."""
    heading = f"{where}: " if where else ""
    if len(problems) == 1:
        return ConfigError(heading + problems[0])
    count = f"{len(problems)} problems"
    if errors > MAX_PROBLEMS:
        count = f"{errors:,} problems; the first {MAX_PROBLEMS}"
    return ConfigError(f"{heading}{count}:", *problems)


def as_option(problem: str) -> str:
    """The line `top_k: 0 should be ...` for the user of the command line."""
    return f"--{problem.replace('_', '-')}"


def as_argument(problem: str) -> str:
    """The line `top_k: 0 should be ...` for the user of the library."""
    return problem.replace(": ", "=", 1)


def updated(group: _Group, named: Callable[[str], str] = as_option, /, **changes: Any) -> _Group:
    """Return a copy of a group with other values.

    Args:
        named: names the value in a line about it.
        changes: the new values; None leaves a setting as it is.

    Raises:
        ConfigError: values are wrong; one line per value.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return type(group).model_validate(group.model_dump() | given)
    except ValidationError as error:
        problems = [*map(named, explain(error))]
        raise _config_error("", problems, error.error_count()) from error


def _set(raw: dict[str, Any], override: str) -> None:
    """Apply one override `a.b=value` to nested dictionaries: `raw` in place, copies inside it."""
    dotted, equals, text = override.partition("=")
    *groups, leaf = dotted.strip().split(".")
    if groups == ["data"]:
        leaf = OLD_NAMES.get(leaf, leaf)
    if not equals or not leaf or not all(groups):
        raise ConfigError(f"set={plain(override)}: write KEY=VALUE, such as train.max_steps=500")
    for i, group in enumerate(groups):
        inner = {} if raw.get(group) is None else raw[group]
        if not isinstance(inner, dict):
            path = plain(".".join(groups[: i + 1]))
            raise ConfigError(f"set={plain(override)}: {path} is not a group of settings")
        raw[group] = dict(inner)
        raw = raw[group]
    raw[leaf] = _value(".".join([*groups, leaf]), text)


def limiting(overrides: Iterable[str]) -> list[str]:
    """Those of these `KEY=VALUE` settings that limit a run."""
    keys = {f"train.{limit}" for limit in LIMITS}
    return [it for it in overrides if it.partition("=")[0].strip() in keys]


def _value(key: str, text: str) -> Any:
    """Return the text itself for a setting that is a string, else its value as YAML."""
    expected = next((setting.type for setting in settings() if setting.key == key), "")
    is_list = "list" in expected and text.startswith("[") and text.endswith("]")
    is_null = "null" in expected and text == "null"
    if expected.startswith("str") and not (is_list or is_null):
        return text
    return parse_yaml(text, f"set={plain(key)}")


def to_yaml(config: Config) -> str:
    """Return all settings as YAML. `load_config` reads them back as an equal Config."""
    return write_yaml(config.model_dump(mode="json"))


def to_schema() -> str:
    """Return the JSON Schema (2020-12) of a config file, for editors.

    `name` is not required, because its default is the name of the file.
    """
    schema = Config.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    return json.dumps({"title": "charlm config"} | schema, indent=2) + "\n"
