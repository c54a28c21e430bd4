"""Checkpoints of older formats can be opened, sampled and resumed."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from charlm import load
from charlm.checkpoint.format import FORMAT, LAST
from charlm.checkpoint.read import read_meta
from charlm.checkpoint.upgrade import upgraded
from charlm.config.files import parse_config
from tests.training.helpers import resume, saved_weights, train

FORMATS = Path(__file__).with_name("formats")
OLD = range(1, FORMAT)
SETTINGS = {
    "name": "format",
    "model": {"kind": "lstm", "hidden_size": 4},
    "train": {
        **{"batch_size": 2, "seq_len": 8, "max_steps": 40, "precision": "fp32", "compile": "off"},
        **{"threads": 1, "optimizer": {"kind": "muon"}, "schedule": {"kind": "constant"}},
    },
    "eval": {"every": 10, "sample_every": None},
}


def text_of_the_run(folder: Path) -> Path:
    """4,000 random characters, always the same."""
    choose = random.Random(7).choice
    path = folder / "text.txt"
    path.write_text("".join(choose("ab ,.\n") for _ in range(4000)), encoding="utf-8")
    return path


def file_of(version: int, step: int) -> Path:
    return FORMATS / f"format-{version}-step-{step}.safetensors"


@pytest.mark.parametrize("version", OLD)
def test_the_metadata_of_an_old_checkpoint_is_kept(version: int) -> None:
    with safe_open(file_of(version, 20), "pt") as file:
        stored = json.loads(file.metadata()["charlm"])
    assert stored["format"] == version
    meta = read_meta(file_of(version, 20))
    assert meta.format == FORMAT
    assert meta.progress.step == 20
    kept = meta.model_dump(mode="json")
    for name in ("vocab", "corpus", "parameters", "device", "precision", "threads"):
        assert kept[name] == stored[name], name
    assert kept["progress"].items() >= stored["progress"].items()  # newer ones know more


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_an_old_checkpoint_samples(version: int, engine: str) -> None:
    text = load(file_of(version, 40), engine=engine, device="cpu").sample(length=30, seed=1)
    assert len(text) == 30
    assert set(text) <= set("ab ,.\n")


@pytest.mark.parametrize("version", OLD)
def test_a_run_resumed_from_an_old_checkpoint_ends_with_the_same_weights(
    version: int, tmp_path: Path
) -> None:
    """Up to the last bits, which depend on the CPU that wrote the file: those of bfloat16, in which
    format 1 has Muon's products."""
    folder = tmp_path / "format"
    folder.mkdir()
    shutil.copy(file_of(version, 20), folder / LAST)
    config = parse_config(SETTINGS | {"data": {"path": str(text_of_the_run(tmp_path))}})
    train(resume(config, folder, "cpu"))
    ours, theirs = (saved_weights(it) for it in (folder / LAST, file_of(version, 40)))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-3)


def test_every_upgrade_raises_the_format_by_one_and_the_current_format_is_kept() -> None:
    current = {"format": FORMAT, "muon": "fp32"}
    assert upgraded(current) == current
    assert upgraded({"format": 1})["format"] == FORMAT
    assert upgraded({"format": 1})["muon"] == "bf16"
