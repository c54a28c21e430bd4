"""Default settings for a text that has no config."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config import Config, RecurrentConfig
from charlm.config import suggest as module
from charlm.config.files import parse_config
from charlm.config.suggest import name_for, suggest
from charlm.data.amounts import fit_batch, steps_per_epoch
from charlm.training.schedule import Limits

ANY_TEXT = st.text(st.characters(), min_size=1)  # with lone surrogates, as in file names


def suggested(chars: int, *path: str) -> Config:
    return parse_config(suggest(path or ("a.txt",), chars))


@given(path=st.lists(ANY_TEXT, min_size=1, max_size=3), chars=st.integers(0, 10**12))
@example(["a.txt"], 30_000)
@example(["-"], 30_001)
@example(["builtin:python"], 10**9)
def test_a_suggestion_is_a_valid_config_of_the_text(path: list[str], chars: int) -> None:
    config = parse_config(suggest(tuple(path), chars))
    assert config.data.path == tuple(path)
    limits = [config.train.max_steps, config.train.max_epochs, config.train.max_seconds]
    assert sum(limit is not None for limit in limits) == 1


def test_a_longer_text_gets_a_larger_model_and_less_dropout() -> None:
    borders = [row[0] for row in module._BY_SIZE]
    configs = [suggested(chars) for border in borders for chars in (border, border + 1)]
    for less, more in itertools.pairwise(configs):
        assert isinstance(less.model, RecurrentConfig)
        assert isinstance(more.model, RecurrentConfig)
        assert less.model.hidden_size <= more.model.hidden_size
        assert less.train.batch_size <= more.train.batch_size
        assert less.model.output_dropout >= more.model.output_dropout
    for row, config in zip(module._BY_SIZE, configs[::2], strict=True):
        model, train = config.model.model_dump(), config.train
        found = (model["hidden_size"], train.batch_size, train.max_epochs, model["input_dropout"])
        assert found == row[1:]
    assert (configs[-1].train.max_epochs, configs[-2].train.max_steps) == (None, None)


@given(st.integers(65, 2000) | st.integers(65, 10**9))
def test_a_suggested_run_is_longer_than_its_warm_up(chars: int) -> None:
    ids = np.broadcast_to(np.uint8(0), chars)
    train, _ = fit_batch(ids, suggested(chars).train)
    steps = Limits.of(train, steps_per_epoch(ids, train)).steps
    assert steps is not None
    assert steps > 1.5 * train.schedule.warmup_steps


@given(path=st.lists(ANY_TEXT, min_size=1, max_size=2))
@example(["x" * 300])
@example(["a" * 99 + "-" * 9 + "b"])
@example(["..."])
def test_every_suggested_name_is_valid(path: list[str]) -> None:
    name = name_for(tuple(path))
    assert parse_config({"name": name, "data": {"path": "a"}}).name == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("notes.txt", "notes"),
        ("a/b/My Notes (2).txt.gz", "My-Notes-2"),
        ("tinyshakespeare", "tinyshakespeare"),
        ("builtin:python-topics", "python-topics"),
        (".hidden", "hidden"),
        ("folder/", "folder"),
        ("src/**/*.c", "text"),
        ("-", "text"),
        ("日本.txt", "日本"),
        ("a/Моя книга.txt", "Моя-книга"),
        ("हिन्दी.txt", "हिन्दी"),  # with combining marks
        ("cafe\u0301.txt", "café"),
        ("\u0301.txt", "text"),  # a mark without a letter
        ("con.txt", "text"),  # reserved by Windows
        ("(draft).txt", "draft"),
        ("é" * 150, "é" * 100),
    ],
)
def test_a_run_is_named_after_its_text(path: str, name: str) -> None:
    assert name_for((path, "other.txt")) == name


@pytest.mark.parametrize("model", ["gpt", "gru", "lstm"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_overrides_can_set_another_kind_than_suggested(model: str, optimizer: str) -> None:
    overrides = [f"model.kind={model}", f"train.optimizer.kind={optimizer}"]
    settings = suggest(("a.txt",), 1000)
    config = parse_config(settings, overrides)
    assert (config.model.kind, config.train.optimizer.kind) == (model, optimizer)
    if optimizer == "muon":
        assert config.train.optimizer.weight_decay == 0.1
    if isinstance(config.model, RecurrentConfig) and model == "lstm":
        assert config.model.hidden_size == 64
