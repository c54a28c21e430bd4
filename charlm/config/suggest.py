"""Default settings for a text that has no config, chosen by its length."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from charlm.config.base import MAX_NAME_LENGTH

# maximum number of characters, hidden_size, batch_size, max_epochs, dropout
_BY_SIZE = (
    (10_000, 64, 2, 20.0, 0.4),
    (40_000, 128, 4, 25.0, 0.3),
    (150_000, 128, 8, 20.0, 0.3),
    (500_000, 256, 16, 6.0, 0.1),
    (3_000_000, 512, 32, 3.0, 0.0),
)
_STEPS = 1500  # max_steps of a text that is longer than all of these


def suggest(path: tuple[str, ...], chars: int) -> dict[str, Any]:
    """Return a config for a text, as nested dictionaries.

    It has one LSTM layer and the optimizer Muon. Training takes minutes on two cores.

    Args:
        path: what the user gave as the text, see `data.path`.
        chars: number of characters of the training part.
    """
    fits = [row for row in _BY_SIZE if chars <= row[0]]
    _, hidden_size, batch_size, epochs, dropout = fits[0] if fits else _BY_SIZE[-1]
    limit = {"max_epochs": epochs} if fits else {"max_steps": _STEPS}
    return {
        "name": name_for(path),
        "data": {"path": path[0] if len(path) == 1 else list(path)},
        "model": {"kind": "lstm", "n_layer": 1, "hidden_size": hidden_size}
        | {"input_dropout": dropout, "output_dropout": dropout},
        "train": {
            "batch_size": batch_size,
            "seq_len": 64,
            "expected_minutes": 10,
            **limit,
            "optimizer": {"kind": "muon", "lr": 0.02, "weight_decay": 0.1, "adamw_lr": 4e-3},
            "schedule": {"kind": "wsd", "warmup_steps": 10},
        },
        "eval": {"every": 100, "sample_every": 200},
    }


def drop_other_kinds(settings: dict[str, Any], overrides: list[str]) -> None:
    """Remove, in place, the suggested groups whose kind the overrides change.

    Their keys belong to the suggested kind, and are wrong for the new one.

    Args:
        settings: what `suggest` returned.
        overrides: `KEY=VALUE` settings.
    """
    kinds = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip().endswith(".kind"):
            kinds[key.strip().removesuffix(".kind")] = value.strip()
    for path, kind in kinds.items():
        *parents, name = path.split(".")
        group = settings
        for parent in parents:
            group = group.get(parent, {})
        if group.get(name, {}).get("kind") not in (None, kind):
            del group[name]
    if kinds.get("model") == "gpt":
        del settings["train"]["seq_len"]  # a gpt uses model.context


def name_for(path: tuple[str, ...]) -> str:
    """Return a valid name for a run: the name of the first file, without invalid characters."""
    name = PurePath(path[0]).name.removeprefix("builtin:")
    stem = name.split(".")[0] or name
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).strip("-._+")[:MAX_NAME_LENGTH] or "text"
