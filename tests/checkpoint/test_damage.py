"""A checkpoint may come from anywhere: damage is reported in one line and never computed with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.read import read_meta
from charlm.cli import main
from charlm.errors import CheckpointError
from tests.training.helpers import make_config, new_run, resume, saved_model

Tensors = dict[str, Tensor]


def rewrite(path: Path, change: Callable[[Tensors], Any]) -> None:
    """Change only the tensors of a checkpoint."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata)


WEIGHTS: dict[str, Callable[[Tensors], Any]] = {
    "another shape": lambda t: t.update({"model.head.weight": torch.zeros(5, 5)}),
    "one column to broadcast": lambda t: t.update(
        {"model.head.weight": t["model.head.weight"][:, :1].clone()}
    ),
    "whole numbers": lambda t: t.update(
        {"model.head.weight": t["model.head.weight"].to(torch.int8)}
    ),
    "one missing": lambda t: t.pop("model.head.weight"),
    "one too many": lambda t: t.update({"model.more": torch.zeros(1)}),
}
STATES: dict[str, Callable[[Tensors], Any]] = {
    "a moment of another shape": lambda t: t.update(
        {"optimizer.head.weight:exp_avg": torch.zeros(3, 3)}
    ),
    "a moment of nothing": lambda t: t.update({"optimizer.none:exp_avg": torch.zeros(3)}),
    "a moment that is one number": lambda t: t.update(
        {"optimizer.head.weight:exp_avg": torch.zeros(())}
    ),
    "a moment in another type": lambda t: t.update(
        {"optimizer.head.weight:exp_avg": t["optimizer.head.weight:exp_avg"].double()}
    ),
    "a moment missing": lambda t: t.pop("optimizer.head.weight:exp_avg_sq"),
    "a step that is a vector": lambda t: t.update({"optimizer.head.weight:step": torch.zeros(2)}),
    "half a state": lambda t: t.pop("state.0.1"),
    "a state in another type": lambda t: t.update({"state.0.0": t["state.0.0"].half()}),
    "a state of another shape": lambda t: t.update({"state.0.0": torch.zeros(1, 1, 1)}),
    "no generator": lambda t: t.pop("rng.cpu"),
}


@pytest.fixture
def folder(tiny_text: Path, tmp_path: Path) -> Path:
    return new_run(make_config(tiny_text, "lstm"), tmp_path, stop_at=4)


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_are_not_those_of_the_model_are_rejected(what: str, folder: Path) -> None:
    rewrite(folder / LAST, WEIGHTS[what])
    with pytest.raises(CheckpointError, match="this checkpoint is damaged"):
        saved_model(folder / LAST)


@pytest.mark.parametrize("what", STATES)
def test_states_that_do_not_match_are_rejected(what: str, folder: Path) -> None:
    rewrite(folder / LAST, STATES[what])
    ready = resume(read_meta(folder / LAST).config, folder, "cpu")
    with pytest.raises(CheckpointError, match="this checkpoint is damaged"):
        ready.trainer([], lambda: False).train()


@pytest.mark.parametrize(
    "changed",
    [
        lambda ids: torch.full_like(ids, -1),
        lambda ids: torch.full_like(ids, 1 << 62),
        lambda ids: ids.float(),
        lambda ids: ids[..., 1:].clone(),
    ],
)
def test_the_state_of_an_mlp_must_be_ids(
    changed: Callable[[torch.Tensor], torch.Tensor], tiny_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text, "mlp"), tmp_path, stop_at=4)
    rewrite(folder / LAST, lambda t: t.update({"state.0.0": changed(t["state.0.0"])}))
    ready = resume(read_meta(folder / LAST).config, folder, "cpu")
    with pytest.raises(CheckpointError, match="this checkpoint is damaged"):
        ready.trainer([], lambda: False).train()


@pytest.mark.parametrize("vocab", ["", "aab"])
def test_the_characters_of_a_vocabulary_must_be_distinct(vocab: str, folder: Path) -> None:
    metadata = read_meta(folder / LAST).model_dump()
    with pytest.raises(ValidationError, match="it is empty, or has a character twice"):
        Meta.model_validate(metadata | {"vocab": vocab})


def test_broken_weights_neither_sample_nor_score(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(folder / LAST, lambda t: t["model.head.weight"].fill_(torch.nan))
    for verb in ("sample", "eval"):
        assert main([verb, str(folder / LAST), "--device", "cpu"]) == 2
        assert "weights are broken" in capsys.readouterr().err
