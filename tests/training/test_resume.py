"""A run is an equality: wherever it is stopped and resumed, it leaves the same bits behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from charlm.training import session
from charlm.training.checkpoint import BEST, LAST, read_meta
from tests.training.helpers import (
    KINDS,
    OPTIMIZERS,
    assert_same_run,
    go_on,
    make_config,
    metrics,
    new_run,
    same_tensors,
    train,
)

NETWORKS = [(kind, "streams") for kind in ("rnn", "gru", "lstm")]
NETWORKS += [(kind, "windows") for kind in KINDS]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("kind", "batches"), NETWORKS)
def test_a_run_stopped_twice_and_resumed_is_the_run_never_stopped(
    kind: str, batches: str, optimizer: str, tiny_text: Path, tmp_path: Path
) -> None:
    settings = (f"train.optimizer.kind={optimizer}", f"train.batches={batches}")
    config = make_config(tiny_text, kind, *settings, "train.grad_accum=2")
    reference = new_run(config, tmp_path / "never")
    folder = new_run(config, tmp_path / "twice", stop_at=4)  # in an evaluation
    assert go_on(config, folder, stop_at=9) == "stopped"
    assert go_on(config, folder) == "finished"
    assert_same_run(folder, reference)
