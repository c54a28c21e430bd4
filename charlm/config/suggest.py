"""Default settings for a text that has no config, chosen by its length."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath
from typing import Any

from charlm.config.names import MAX_NAME_BYTES, is_name_char, name_problem
from charlm.config.run import Config

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


def fit_to_model(settings: dict[str, Any], of: Config) -> None:
    """Replace, in place, the suggested model by that of a checkpoint, with what belongs to it.

    Args:
        settings: what `suggest` returned.
        of: the settings of the checkpoint.
    """
    recorded = of.model_dump(mode="json")
    settings["model"] = recorded["model"]
    for group, names in _OF_MODEL.items():
        settings[group] |= {name: recorded[group][name] for name in names}


# the characters that its vocabulary has, and what its optimizer and evaluations were chosen for
_OF_MODEL = {
    "data": ("unit", "documents", "normalize", "newlines", "vocab_min_count", "vocab_size"),
    "train": ("batches", "seq_len", "optimizer"),
    "eval": ("protocol",),
}


def name_for(path: tuple[str, ...]) -> str:
    """Return a valid name for a run: the name of the first file, without spaces, parentheses and
    characters that are not allowed."""
    name = PurePath(path[0]).name.removeprefix("builtin:")
    stem = unicodedata.normalize("NFC", name.split(".")[0] or name)
    kept = "".join(char if is_name_char(char) and char not in " ()" else " " for char in stem)
    short = re.sub(" +", "-", kept).encode(errors="ignore")[:MAX_NAME_BYTES].decode(errors="ignore")
    short = short.strip("-._+")
    return "text" if name_problem(short) else short
