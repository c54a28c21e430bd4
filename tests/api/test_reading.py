"""What a model gives for a text, against PyTorch in float64."""

from __future__ import annotations

import copy
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from charlm import load
from charlm.checkpoint.format import BEST, LAST
from charlm.errors import CheckpointError, DataError
from charlm.insight.record import record
from charlm.models import GPT, CharModel
from charlm.sampling.engines import ENGINES
from tests.api.test_model import loaded
from tests.conftest import KINDS, TinyRun
from tests.training.helpers import saved_model

TEXT = "ANNE:\nThe old king sees the fox. No one sings to my lord!\n"  # longer than the context
each_kind = pytest.mark.parametrize("kind", KINDS)
each_engine = pytest.mark.parametrize("engine", ENGINES)


def doubled(run: Path) -> CharModel:
    """The model of a run, in float64."""
    return saved_model(run / BEST).double()


def rows_of(model: CharModel, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logits after each character, (N, V), each from a text that is read on its own."""
    rows = []
    for t in range(1, len(ids) + 1):
        start = 0
        while model.context and t - start > model.context:  # it keeps the last half of its context
            start += model.context - model.context // 2
        with torch.no_grad():
            rows.append(model(torch.from_numpy(ids[None, start:t]))[0][0, -1].numpy())
    return np.stack(rows)


def log_softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([row - math.log(sum(map(math.exp, row))) for row in rows])


@each_engine
@each_kind
def test_logits_are_those_of_pytorch(kind: str, engine: str, tiny_run: TinyRun) -> None:
    model = loaded(tiny_run(kind), engine)
    expected = rows_of(doubled(tiny_run(kind)), model.vocab.encode(TEXT).astype(np.int64))
    logits = model.logits(TEXT)
    assert logits.shape == (len(TEXT), len(model.vocab))
    assert logits.dtype == np.float32
    # the eps of a GPT's norm is that of the type, so float64 differs by more than rounding
    np.testing.assert_allclose(logits, expected, atol=1e-4 if kind == "gpt" else 1e-6)
    assert model.logits("").shape == (0, len(model.vocab))


@each_kind
def test_surprisal_is_in_bits_and_sums_to_the_score(kind: str, tiny_run: TinyRun) -> None:
    model, N = load(tiny_run(kind)), len(TEXT)
    for prompt in ("", "The fox\n"):
        ids = model.vocab.encode((prompt or "\n") + TEXT).astype(np.int64)
        log_p = log_softmax(rows_of(doubled(tiny_run(kind)), ids[:-1]))  # (., V)
        expected = [-log_p[t, ids[t + 1]] / math.log(2) for t in range(len(ids) - 1)][-N:]
        bits = model.surprisal(TEXT, prompt)
        assert bits.shape == (N,)
        assert bits.dtype == np.float64
        np.testing.assert_allclose(bits, expected, atol=1e-4)
        assert model.score(TEXT, prompt).bits_per_char == pytest.approx(float(bits.mean()))
    assert model.surprisal("").shape == (0,)


@each_kind
def test_next_has_every_character_and_its_probability(kind: str, tiny_run: TinyRun) -> None:
    model = load(tiny_run(kind))
    for text in (TEXT, "T", ""):
        ids = model.vocab.encode(text or "\n").astype(np.int64)
        p = np.exp(log_softmax(rows_of(doubled(tiny_run(kind)), ids)[-1:]))[0]
        chars, probabilities = model.next(text)
        assert sorted(chars) == sorted(model.vocab.chars)
        assert np.all(np.diff(probabilities) <= 0)
        assert probabilities.sum() == pytest.approx(1)
        np.testing.assert_allclose(probabilities, p[model.vocab.encode(chars)], atol=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_states_of_a_recurrent_network_are_its_states(kind: str, tiny_run: TinyRun) -> None:
    model, exact = load(tiny_run(kind)), doubled(tiny_run(kind))
    states, ids = model.states(TEXT), torch.from_numpy(model.vocab.encode(TEXT).astype(np.int64))
    assert list(states) == (["h", "c"] if kind == "lstm" else ["h"])
    for t in range(len(TEXT)):
        with torch.no_grad():
            _, state = exact(ids[None, : t + 1])  # each (L, B, D)
        for values, part in zip(states.values(), state, strict=True):
            np.testing.assert_allclose(values[:, t], part[:, 0].numpy(), atol=1e-5)
    assert {values.dtype for values in states.values()} == {np.dtype(np.float32)}


def test_states_of_an_mlp_are_what_its_layers_give(tiny_run: TinyRun) -> None:
    model, exact = load(tiny_run("mlp")), doubled(tiny_run("mlp"))
    states, w = model.states(TEXT), {name: p.numpy() for name, p in exact.state_dict().items()}
    assert list(states) == ["h"]
    N = model.config.model.model_dump()["context"]
    ids = [0] * (N - 1) + model.vocab.encode(TEXT).tolist()  # a text starts after characters 0
    for t in range(len(TEXT)):
        x = w["embed.weight"][ids[t : t + N]].ravel()  # (N * E,)
        for layer, h in enumerate(states["h"][:, t]):
            x = np.maximum(w[f"layers.{layer}.weight"] @ x + w[f"layers.{layer}.bias"], 0)
            np.testing.assert_allclose(h, x, atol=1e-5)


def test_states_of_a_gpt_are_what_its_blocks_give(tiny_run: TinyRun) -> None:
    model, exact = load(tiny_run("gpt")), doubled(tiny_run("gpt"))
    assert isinstance(exact, GPT)
    text = TEXT[:16]  # one window
    seen: list[NDArray[np.float64]] = []
    for block in exact.blocks:
        block.register_forward_hook(
            lambda _module, _inputs, outputs: seen.append(outputs[0][0].detach().numpy())
        )
    with torch.no_grad():
        exact(torch.from_numpy(model.vocab.encode(text).astype(np.int64))[None])
    states = model.states(text)
    assert {kind: values.shape for kind, values in states.items()} == {
        "mlp": (2, 16, exact.config.mlp_width),
        "x": (2, 16, 16),
    }
    np.testing.assert_allclose(states["x"], np.stack(seen), atol=1e-5)


@each_kind
def test_states_of_no_text(kind: str, tiny_run: TinyRun) -> None:
    assert {values.shape[:2] for values in load(tiny_run(kind)).states("").values()} == {(2, 0)}


@each_kind
def test_a_module_of_pytorch_can_be_recorded(kind: str, tiny_run: TinyRun) -> None:
    model = load(tiny_run(kind))
    module, ids = model.torch_model(), model.vocab.encode(TEXT)
    before = copy.deepcopy(module.state_dict())
    recorded = record(module, ids)
    for unit, values in model.states(TEXT).items():
        np.testing.assert_allclose(recorded.units[unit], values, atol=2e-3)
    in_bits = recorded.nats[1:] / math.log(2)
    np.testing.assert_allclose(in_bits, model.surprisal(TEXT[1:], TEXT[0]), atol=1e-3)
    assert all(torch.equal(before[name], it) for name, it in module.state_dict().items())


def test_a_file_that_has_changed_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(tiny_run("rnn") / BEST, path)
    model = load(path)
    shutil.copy(tiny_run("gru") / LAST, path)
    with pytest.raises(CheckpointError, match="the file has changed; load the model again"):
        model.states("The")


def test_wrong_texts_are_refused(tiny_run: TinyRun) -> None:
    model = load(tiny_run("rnn"))
    for read in (model.logits, model.next, model.states, model.surprisal, model.score):
        with pytest.raises(TypeError, match=r"^text= should be a string, not list$"):
            read(["The"])  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"does not have '\['"):
            read("[")


def test_a_repr_says_what_a_model_is(tiny_run: TinyRun) -> None:
    model = load(tiny_run("lstm"), engine="numpy")
    assert model.config.name == "lstm"
    progress = model.meta.progress
    assert progress.best_loss is not None
    expected = (
        f"<charlm.Model {model.path}: lstm, 2 layers of 16, 5,662 parameters; text "
        f"{model.meta.corpus.source}, {model.meta.corpus.chars:,} chars, vocabulary 30; step 6, "
        f"val {progress.best_loss:.4f} nats/char ({progress.best_loss / math.log(2):.4f} "
        "bits/char); engine numpy>"
    )
    assert re.sub(r"[\d,]+ parameters|vocabulary \d+", "", repr(model)) == re.sub(
        r"[\d,]+ parameters|vocabulary \d+", "", expected
    )
    assert f" {saved_model(model.path).count_parameters():,} parameters" in repr(model)
    meta = model.meta.model_copy(
        update={"corpus": model.meta.corpus.model_copy(update={"source": "a\x1b[2J\nb"})}
    )
    model.meta = meta.model_copy(
        update={"progress": progress.model_copy(update={"best_loss": None, "best_step": None})}
    )
    assert r"text a\x1b[2J\nb, " in repr(model)
    assert "; step 6, not evaluated; engine" in repr(model)
