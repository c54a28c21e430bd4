"""Settings that belong to a kind of model, optimizer or schedule."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from charlm.config.reference import settings
from charlm.config.run import Config
from charlm.config.train import TrainConfig

# the groups whose keys depend on `kind`, and the groups that contain them
_GROUPS: dict[str, type[BaseModel]] = {
    "model": Config,
    "train.optimizer": TrainConfig,
    "train.schedule": TrainConfig,
}
_NOT_OF_GPT = ("train.seq_len", "train.batches", "train.fresh_state")  # it has model.context


def kind_of(group: str, raw: Mapping[str, Any], overrides: Iterable[str] = ()) -> str:
    """The kind of a group such as `train.optimizer`, after these `KEY=VALUE` overrides."""
    default = _GROUPS[group].model_fields[group.rpartition(".")[2]].default
    kind = (_group_at(raw, group) or {}).get("kind", default.kind)
    for override in overrides:
        key, _, value = override.partition("=")
        kind = value.strip() if key.strip() == f"{group}.kind" else kind
    return kind if isinstance(kind, str) else ""  # pydantic reports another type


def drop_other_kinds(raw: dict[str, Any], overrides: Collection[str]) -> list[str]:
    """Remove the settings of a kind that the overrides replace by another one.

    They belong to the old kind: another optimizer, for example, needs another learning rate. What
    both kinds share, such as the warm-up of a schedule, stays. The overrides are not applied here.

    Args:
        raw: nested dictionaries; those that change are replaced by copies.

    Returns:
        A line for the user for each kind of which settings were removed.
    """
    given = {override.partition("=")[0].strip() for override in overrides}
    lines = []
    for group in _GROUPS:
        old, new = kind_of(group, raw), kind_of(group, raw, overrides)
        before, after = _class_of(group, old), _class_of(group, new)
        if before is None or after is None or before is after:
            continue
        bases = [it for it in before.__mro__ if issubclass(after, it)]
        shared = {"kind", *(key for base in bases for key in getattr(base, "model_fields", ()))}
        keys = [f"{group}.{key}" for key in _group_at(raw, group) or {} if key not in shared]
        gone = [key for key in (*keys, *_NOT_OF_GPT * (new == "gpt")) if _remove(raw, key)]
        if lost := [key for key in gone if key not in given]:
            reason = f"left out, since {group}.kind is {new} and not {old}"
            lines.append(f"{', '.join(lost)}: {reason}")
    return lines


def _class_of(group: str, kind: str) -> type[BaseModel] | None:
    """The class of a group with this kind; None for an unknown kind."""
    union = _GROUPS[group].model_fields[group.rpartition(".")[2]].annotation
    kinds = {
        name: it for it in get_args(union) for name in get_args(it.model_fields["kind"].annotation)
    }
    return kinds.get(kind)


def _group_at(raw: Mapping[str, Any], group: str) -> Mapping[str, Any] | None:
    """The mapping at a dotted name; None if there is none."""
    found: Any = raw
    for key in group.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _remove(raw: dict[str, Any], dotted: str) -> bool:
    """Remove a setting, if it is there; the mappings inside `raw` are replaced by copies."""
    group, _, leaf = dotted.rpartition(".")
    if leaf not in (_group_at(raw, group) or {}):
        return False
    for key in group.split("."):
        raw[key] = dict(raw[key])
        raw = raw[key]
    del raw[leaf]
    return True


def for_kind(override: str, kind: str) -> str:
    """Return an override with one key.

    Args:
        override: `KEY=VALUE`, or `KEY|KEY=VALUE` to set the first key that the kind of model has.
    """
    keys, equals, value = override.partition("=")
    if "|" not in keys:
        return override
    known = {it.key for it in settings() if not it.only or kind in it.only}
    known -= {*_NOT_OF_GPT} if kind == "gpt" else set()
    *others, last = keys.split("|")
    return next((key for key in others if key in known), last) + equals + value
