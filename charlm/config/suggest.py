"""Settings for a text that comes without any: by how much of it there is."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

# characters up to: units of one LSTM layer, streams, passes over the text, dropout
_BY_SIZE = (
    (10_000, 64, 2, 20.0, 0.4),
    (40_000, 128, 4, 25.0, 0.3),
    (150_000, 128, 8, 20.0, 0.3),
    (500_000, 256, 16, 6.0, 0.1),
    (3_000_000, 512, 32, 3.0, 0.0),
)
_STEPS = 1500  # of a text that is larger than all of these


def suggest(path: tuple[str, ...], chars: int) -> dict[str, Any]:
    """A config, as nested dictionaries, for a training text of so many characters.

    One LSTM layer under Muon, of a size that such a text can teach in minutes on two cores.
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


def yield_to(settings: dict[str, Any], overrides: list[str]) -> None:
    """Take out what is suggested for another kind than `KEY=VALUE` overrides name."""
    kinds = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key.strip().endswith(".kind"):
            kinds[key.strip().removesuffix(".kind")] = value.strip()
    for path, kind in kinds.items():
        *above, name = path.split(".")
        group = settings
        for part in above:
            group = group.get(part, {})
        if group.get(name, {}).get("kind") not in (None, kind):
            del group[name]
    if kinds.get("model") == "gpt":
        del settings["train"]["seq_len"]  # the model's context


def name_for(path: tuple[str, ...]) -> str:
    """The name of a run on this text: its file's, without what a name may not have."""
    name = PurePath(path[0]).name.removeprefix("builtin:")
    stem = name.split(".")[0] or name
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).strip("-._+")[:100] or "text"
