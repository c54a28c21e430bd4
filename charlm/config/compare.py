"""Comparing two groups of settings."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def differences(old: BaseModel, new: BaseModel) -> dict[str, tuple[Any, Any]]:
    """Return the old and the new value of each setting that differs, by its dotted name.

    A setting that one of them lacks has the value None there.
    """
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    return {
        key: (before.get(key), after.get(key))
        for key in before | after
        if before.get(key) != after.get(key)
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
