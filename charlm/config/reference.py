"""The list of all settings, and the same list as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from charlm.config.run import Config


@dataclass(frozen=True)
class Setting:
    """One setting.

    `only` lists the kinds that have it; it is empty if all kinds have it. `default` is JSON; it is
    empty for a required setting.
    """

    key: str
    only: tuple[str, ...]
    type: str
    default: str
    meaning: str


def settings() -> Iterator[Setting]:
    """Yield all settings, in the order of the config."""
    yield from _walk(Config, "", ())


def is_setting(text: str) -> bool:
    """Whether a text is `KEY=VALUE` for a setting that exists."""
    key, equals, _ = text.partition("=")
    return bool(equals) and any(key == setting.key for setting in settings())


def _walk(group: type[BaseModel], prefix: str, only: tuple[str, ...]) -> Iterator[Setting]:
    for name, field in group.model_fields.items():
        members = [
            arg
            for arg in (field.annotation, *get_args(field.annotation))
            if isinstance(arg, type) and issubclass(arg, BaseModel)
        ]
        for member in members:
            kinds = get_args(member.model_fields["kind"].annotation) if len(members) > 1 else ()
            yield from _walk(member, f"{prefix}{name}.", kinds)
        if not members:
            default = field.get_default()
            yield Setting(
                key=prefix + name,
                only=only,
                type=_type_name(field.annotation),
                default="" if default is PydanticUndefined else json.dumps(default),
                meaning=field.description or "",
            )


def _type_name(annotation: Any) -> str:
    """The type in terms of YAML: `int`, `float or null`, `none or lines`."""
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type):
        return annotation.__name__
    args = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _type_name(args[0])
    if get_origin(annotation) is tuple:
        if Ellipsis in args:  # a list; a single value is allowed too
            return f"{_type_name(args[0])} or list"
        return " and ".join(map(_type_name, args))
    return " or ".join(arg if isinstance(arg, str) else _type_name(arg) for arg in args)


def reference() -> str:
    """Return a Markdown table of all settings."""
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for setting in settings():
        kinds = f" ({', '.join(setting.only)})" if setting.only else ""
        default = f"`{setting.default}`" if setting.default else "required"
        rows.append(f"| `{setting.key}`{kinds} | {setting.type} | {default} | {setting.meaning} |")
    return "\n".join(rows) + "\n"
