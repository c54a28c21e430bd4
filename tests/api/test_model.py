"""charlm.load and charlm.api.Model."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import charlm
from charlm import load
from charlm.api import Model
from charlm.checkpoint.format import BEST
from charlm.errors import CharlmError, CheckpointError, ConfigError, DataError
from charlm.kernels.build import NoKernelError
from charlm.sampling.engines import ENGINES, choose_engines
from tests.conftest import KINDS, Charlm, TinyRun, python
from tests.training.helpers import saved_model


def loaded(path: Path, engine: str) -> Model:
    """The model of a checkpoint. The test is skipped if the engine needs a compiler."""
    try:
        return load(path, engine=engine, device="cpu")
    except CharlmError as error:
        if not isinstance(error.__cause__, NoKernelError):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_samples_what_the_command_samples(
    charlm: Charlm, tiny_run: TinyRun, kind: str, engine: str
) -> None:
    out = charlm("sample", tiny_run(kind), "--prompt", "ANNE:", "--length", 50, "--seed", 3).out
    model = loaded(tiny_run(kind), engine)
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
    light = "from charlm import evaluate, inspect, load, runs, train; import sys"
    ended = python("-c", f"{light}; print(*sys.modules)")
    assert not set(ended.stdout.split()) & {"torch", "tensorboard", "tqdm", "pooch"}


def test_the_library_offers_its_functions() -> None:
    for name in charlm.__all__:
        assert name in dir(charlm)
        assert getattr(charlm, name).__doc__ or name == "__version__"
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        charlm.lod  # noqa: B018


# --- sampling ---------------------------------------------------------------------------------


def test_several_texts_are_those_of_the_command(charlm: Charlm, tiny_run: TinyRun) -> None:
    options = ("--length", 20, "--seed", 4, "--num-samples", 35, "--format", "jsonl")
    lines = charlm("sample", tiny_run("gru"), "--prompt", "ANNE:", *options).out.splitlines()
    texts = load(tiny_run("gru")).sample("ANNE:", length=20, seed=4, num_samples=35)
    assert texts == [json.loads(line)["text"] for line in lines]
    assert len(set(texts)) > 1


def test_a_length_of_0_means_no_limit_as_on_the_command_line(tiny_run: TinyRun) -> None:
    model = load(tiny_run("lstm"))
    for length in (0, None):
        endless = model.stream("ANNE:", length=length, seed=3)
        assert "".join(itertools.islice(endless, 300)) == model.sample("ANNE:", length=300, seed=3)
        with pytest.raises(ValueError, match=f"^length={length}: the text would never end; "):
            model.sample("ANNE:", length=length)
        ended = model.sample("ANNE:", length=length, stop="e", seed=3)
        assert ended == model.sample("ANNE:", length=300, seed=3).partition("e")[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": -1}, "ValueError length=-1 should be from 0 to 1,000,000,000,000,000"),
        ({"length": 10**30}, "ValueError length= should be from 0 to 1,000,000,000,000,000"),
        ({"length": 2.5}, "TypeError length= should be an integer, not float"),
        ({"length": True}, "TypeError length= should be an integer, not bool"),
        ({"length": "5"}, "TypeError length= should be an integer, not str"),
        ({"legnth": 3}, "TypeError sample() got an unexpected keyword argument 'legnth'; did you "
         "mean length=?"),
        ({"xyz": 3}, "TypeError sample() got an unexpected keyword argument 'xyz'"),
        ({"temperature": -1}, "ConfigError temperature=-1 should be greater than or equal to 0"),
        ({"temperature": "hot"}, "ConfigError temperature='hot' should be a number"),
        ({"top_k": 0}, "ConfigError top_k=0 should be greater than or equal to 1"),
        ({"seed": -1}, "ValueError seed=-1 should be from 0 to 18,446,744,073,709,551,615"),
        ({"seed": "1"}, "TypeError seed= should be an integer, not str"),
        ({"stop": ""}, "ValueError stop= should be a string that is not empty, or None"),
        ({"stop": b"x"}, "TypeError stop= should be a string, not bytes"),
        ({"num_samples": 0}, "ValueError num_samples=0 should be from 1 to 1,000,000"),
        ({"prompt": 5}, "TypeError prompt= should be a string, not int"),
    ],
)  # fmt: skip
def test_arguments_are_checked_in_pythons_words(
    arguments: dict[str, Any], message: str, tiny_run: TinyRun
) -> None:
    with pytest.raises((CharlmError, TypeError, ValueError)) as caught:
        load(tiny_run("rnn"), engine="numpy").sample(**arguments)
    assert f"{caught.type.__name__} {caught.value}" == message


def test_numbers_may_be_those_of_numpy(tiny_run: TinyRun) -> None:
    model = load(tiny_run("rnn"), engine="numpy")
    numbers: dict[str, Any] = {"length": 20, "seed": 3, "top_k": 5, "temperature": 0.5}
    arrays: dict[str, Any] = {key: np.asarray(value)[()] for key, value in numbers.items()}
    assert model.sample(**arrays) == model.sample(**numbers)
