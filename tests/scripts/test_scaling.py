"""The cost model of docs/scaling.md, and the page's numbers."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from charlm.models import build_model
from tests.conftest import ROOT, python, script_module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return script_module("scaling")


def test_the_tables_of_the_page_are_those_of_the_script() -> None:
    ended = python(ROOT / "scripts" / "scaling.py")
    assert (ended.returncode, ended.stderr) == (0, "")
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    fit, *tables = ended.stdout.strip().split("\n\n")
    assert len(tables) == 3
    assert fit in " ".join(page.split())
    for table in tables:
        assert table in page


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_ring_takes_as_long_as_one_that_is_played_through(script: ModuleType, n: int) -> None:
    network = script.Network("", n, hop_s=0.5, bandwidth=100.0, has_tree=False)
    size = 1000
    held = torch.eye(n).tolist()  # held[i][k]: what process i has of part k, which is 1 at the end
    seconds = script.LAUNCH_S
    for turn in range(2 * (n - 1)):
        sent = [((i - turn) % n, held[i][(i - turn) % n]) for i in range(n)]
        for i, (part, value) in enumerate(sent):
            to = (i + 1) % n
            held[to][part] = value + (held[to][part] if turn < n - 1 else 0)
        seconds += 0.5 + size / n / 100
    assert held == [[1.0] * n] * n
    assert network.all_reduce(n, size) == pytest.approx(seconds)


def test_the_models_have_the_weights_that_charlm_builds(script: ModuleType) -> None:
    configs = [script.load_config(script.CONFIGS / f"{it}.yaml") for it in script.STEPS]
    for config in configs:
        model = build_model(config.model, script.V, seed=1)
        work = script.work("", config.model, 1e12, 1, 64, muon=True)
        assert work.weights == model.count_parameters()
        assert sorted(work.matrices) == sorted(tuple(it.shape) for it in model.hidden_matrices())


def test_one_gpu_sends_nothing_and_a_free_network_costs_nothing(script: ModuleType) -> None:
    free = script.Network("", 8, hop_s=0.0, bandwidth=float("inf"))
    for work in script.works():
        assert work.step(1, free).keys() == {"computing"}
        parts = work.step(8, free)
        assert sum(parts.values()) == pytest.approx(parts["computing"], rel=0.5)
        assert work.total(8, free, batches=1000) * 7 < work.total(1, free, batches=1000)
