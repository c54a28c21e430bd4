"""Comparing groups of settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel


def varying(groups: Sequence[BaseModel]) -> dict[str, list[Any]]:
    """Return the values of each setting that is not the same in all groups, by its dotted name.

    A setting that a group lacks has the value None there.
    """
    flat = [_flat(group.model_dump(mode="json")) for group in groups]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    values = {key: [settings.get(key) for settings in flat] for key in keys}
    return {key: each for key, each in values.items() if any(it != each[0] for it in each)}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
