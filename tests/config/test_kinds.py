"""An override that changes a kind removes the settings of the old kind."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from charlm.config import GPTConfig
from charlm.config.files import parse_config

KINDS = {
    "model": ("rnn", "gru", "lstm", "mlp", "gpt"),
    "train.optimizer": ("sgd", "rmsprop", "adam", "adamw", "muon"),
    "train.schedule": ("constant", "cosine", "exponential", "wsd"),
}


def raw_with(group: str, kind: str) -> dict[str, Any]:
    """A config with every setting of this kind, as `charlm config check` prints it."""
    minimal = parse_config({"name": "a", "data": {"path": "a"}}, [f"{group}.kind={kind}"])
    return minimal.model_dump(mode="json")


@pytest.mark.parametrize(
    ("group", "old", "new"),
    [(group, *pair) for group, kinds in KINDS.items() for pair in itertools.permutations(kinds, 2)],
)
def test_every_kind_can_replace_every_other(group: str, old: str, new: str) -> None:
    raw, notes = raw_with(group, old), list[str]()
    before = copy.deepcopy(raw)
    config = parse_config(raw, [f"{group}.kind={new}"], note=notes.append)
    assert raw == before
    found = config.model_dump(mode="json")
    for key in group.split("."):
        found = found[key]
    assert found["kind"] == new
    related = [{"rnn", "gru", "lstm"}, {"adam", "adamw"}]  # these have the same settings
    keeps_all = old == "constant" or any({old, new} <= kinds for kinds in related)
    assert (notes == []) is keeps_all
    assert all(f"left out, since {group}.kind is {new} and not {old}" in line for line in notes)


def test_a_learning_rate_of_another_optimizer_is_not_used_and_the_note_names_it() -> None:
    notes: list[str] = []
    raw = {"name": "a", "data": {"path": "a"}}
    raw |= {"train": {"optimizer": {"kind": "muon", "lr": 0.3, "adamw_lr": 0.1}}}
    plain = parse_config(raw, ["train.optimizer.kind=adamw"], note=notes.append)
    assert plain.train.optimizer.lr == 2e-3
    assert notes == [
        "train.optimizer.lr, train.optimizer.adamw_lr: left out, since train.optimizer.kind is "
        "adamw and not muon"
    ]
    notes.clear()
    own = ["train.optimizer.lr=0.01", "train.optimizer.kind=adamw"]
    assert parse_config(raw, own, note=notes.append).train.optimizer.lr == 0.01
    assert "train.optimizer.lr" not in notes[0]


def test_what_both_kinds_share_stays() -> None:
    raw = {"name": "a", "data": {"path": "a"}}
    raw |= {"train": {"schedule": {"kind": "cosine", "warmup_steps": 7, "min_lr_ratio": 0.3}}}
    schedule = parse_config(raw, ["train.schedule.kind=wsd"]).train.schedule
    assert (schedule.warmup_steps, schedule.model_dump()["min_lr_ratio"]) == (7, 0)


def test_a_gpt_takes_its_own_context_and_batches() -> None:
    config = parse_config(raw_with("model", "lstm"), ["model.kind=gpt", "model.context=32"])
    assert isinstance(config.model, GPTConfig)
    assert (config.train.seq_len, config.train.batches) == (32, "windows")


def test_nothing_is_removed_if_the_kind_stays_or_is_unknown() -> None:
    notes: list[str] = []
    raw = {"name": "a", "data": {"path": "a"}, "model": {"hidden_size": 5}}
    config = parse_config(raw, ["model.kind=lstm"], note=notes.append)
    assert (config.model.model_dump()["hidden_size"], notes) == (5, [])
