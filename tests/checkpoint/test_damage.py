"""A checkpoint may come from anywhere: what is wrong in it is told in one line, never computed."""

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

from charlm.checkpoint import weights
from charlm.checkpoint.format import LAST, Meta
from charlm.checkpoint.read import read_meta
from charlm.checkpoint.write import exclusive
from charlm.cli import main
from charlm.errors import CheckpointError
from charlm.training import session
from tests.training.helpers import make_config, new_run

Tensors = dict[str, Tensor]


def rewrite(path: Path, change: Callable[[Tensors], Any]) -> None:
    """Change the tensors of a checkpoint, and nothing else."""
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
MEMORY: dict[str, Callable[[Tensors], Any]] = {
    "a moment of another shape": lambda t: t.update(
        {"optimizer.head.weight:exp_avg": torch.zeros(3, 3)}
    ),
    "a moment of nothing": lambda t: t.update({"optimizer.none:exp_avg": torch.zeros(3)}),
    "a state of another shape": lambda t: t.update({"state.0.0": torch.zeros(1, 1, 1)}),
    "no generator": lambda t: t.pop("rng.cpu"),
}


@pytest.fixture
def folder(tiny_text: Path, tmp_path: Path) -> Path:
    return new_run(make_config(tiny_text, "lstm"), tmp_path, stop_at=4)


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_are_not_the_models_are_refused(what: str, folder: Path) -> None:
    rewrite(folder / LAST, WEIGHTS[what])
    with pytest.raises(CheckpointError, match="this checkpoint is damaged"):
        weights.load_model(folder / LAST, read_meta(folder / LAST), "cpu")


@pytest.mark.parametrize("what", MEMORY)
def test_a_memory_that_does_not_fit_is_refused(what: str, folder: Path) -> None:
    rewrite(folder / LAST, MEMORY[what])
    ready = session.resume(read_meta(folder / LAST).config, folder, "cpu")
    with pytest.raises(CheckpointError, match="this checkpoint is damaged"):
        ready.trainer([], lambda: False).train()


@pytest.mark.parametrize("vocab", ["", "aab"])
def test_a_vocabulary_is_of_distinct_characters(vocab: str, folder: Path) -> None:
    told = read_meta(folder / LAST).model_dump()
    with pytest.raises(ValidationError, match="a character stands twice"):
        Meta.model_validate(told | {"vocab": vocab})


def test_a_run_is_trained_by_one_process_at_a_time(folder: Path) -> None:
    ready = session.resume(read_meta(folder / LAST).config, folder, "cpu")
    before = (folder / LAST).read_bytes()
    with exclusive(folder), pytest.raises(CheckpointError, match="another process is training"):
        ready.trainer([], lambda: False).train()
    assert (folder / LAST).read_bytes() == before


def test_weights_that_are_broken_neither_write_nor_score(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(folder / LAST, lambda t: t["model.head.weight"].fill_(torch.nan))
    for verb in ("sample", "eval"):
        assert main([verb, str(folder / LAST), "--device", "cpu"]) == 2
        assert "weights are broken" in capsys.readouterr().err
