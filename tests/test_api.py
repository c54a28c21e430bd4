"""charlm.load and charlm.api.Model."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import charlm
from charlm import load
from charlm.checkpoint.format import BEST
from charlm.errors import CharlmError, CheckpointError, ConfigError, DataError
from charlm.kernels.build import NoKernelError
from charlm.sampling.engines import ENGINES, choose_engines
from tests.conftest import KINDS, Charlm, TinyRun, python
from tests.training.helpers import saved_model


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_samples_what_the_command_samples(
    charlm: Charlm, tiny_run: TinyRun, kind: str, engine: str
) -> None:
    out = charlm("sample", tiny_run(kind), "--prompt", "ANNE:", "--length", 50, "--seed", 3).out
    try:
        model = load(tiny_run(kind), engine=engine, device="cpu")
    except CharlmError as error:
        if not isinstance(error.__cause__, NoKernelError):
            raise
        pytest.skip(str(error))
    assert "ANNE:" + model.sample("ANNE:", length=50, seed=3) == out
    endless = model.stream("ANNE:", length=None, seed=3)
    assert "".join(itertools.islice(endless, 50)) == out.removeprefix("ANNE:")


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_sum_of_the_models_log_probabilities(tiny_run: TinyRun, kind: str) -> None:
    text, path = "The old king", tiny_run(kind) / BEST  # within the context
    model = load(path)
    network = saved_model(path)
    ids = torch.from_numpy(model.vocab.encode(f"\n{text}").astype(np.int64))[None]
    with torch.no_grad():
        log_probs = network(ids[:, :-1])[0][0].double().log_softmax(-1)  # (T, V)
    expected = -float(log_probs.gather(1, ids[0, 1:, None]).sum())
    score = model.score(text)
    assert score.nats == pytest.approx(expected, abs=1e-4)
    assert (score.chars, score.bits_per_char) == (12, score.nats_per_char / math.log(2))
    assert model.score("").nats_per_char == 0.0
    with_prompt = model.score(text[5:], prompt="\n" + text[:5]).nats
    assert with_prompt == pytest.approx(score.nats - model.score(text[:5]).nats, abs=1e-4)


def test_mistakes_are_reported(tiny_run: TinyRun) -> None:
    model = load(tiny_run("lstm"))
    with pytest.raises(ConfigError, match="temperature"):
        model.sample(temperature=-1)
    with pytest.raises(DataError, match=r"does not have '\['"):
        model.score("[")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load("missing")
    with pytest.raises(CharlmError, match="choose auto, native, numpy or torch"):
        load(tiny_run("lstm"), engine="jax")


def test_novelty_needs_the_training_text(workplace: Path, tiny_text: Path) -> None:
    model = load()
    found = model.novelty(["The old king[", "The "] if "[" in model.vocab.chars else ["The old "])
    assert found.longest == "The old "
    assert found.new_ngrams[8] == 0.0
    changed = workplace / "changed.txt"
    changed.write_text(tiny_text.read_text("utf-8") + "more", encoding="utf-8")
    data = model.meta.config.data.model_copy(update={"path": (str(changed),)})
    config = model.meta.config.model_copy(update={"data": data})
    model.meta = model.meta.model_copy(update={"config": config})
    with pytest.raises(DataError, match="not the text this model was trained on"):
        model.novelty(["The old "])


@pytest.mark.parametrize(
    ("engine", "device", "texts", "chosen"),
    [
        ("auto", "auto", 1, ["native", "numpy"]),
        ("auto", "cpu", 15, ["native", "numpy"]),
        ("auto", "auto", 16, ["native", "torch"]),
        ("auto", "cuda:0", 1, ["torch"]),
        ("native", "cpu", 64, ["native"]),
        ("numpy", "cpu", 64, ["numpy"]),
        ("torch", "cpu", 1, ["torch"]),
    ],
)
def test_auto_chooses_the_documented_engines(
    engine: str, device: str, texts: int, chosen: list[str]
) -> None:
    assert choose_engines(engine, device, texts) == chosen


def test_importing_charlm_imports_nothing_heavy() -> None:
    ended = python("-c", "import charlm, sys; print(*sys.modules)")
    assert not set(ended.stdout.split()) & {"torch", "numpy", "pydantic"}
    assert charlm.__all__ == ["__version__", "load"]
