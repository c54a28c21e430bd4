"""Settings for a text that comes without any."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config import Config, RecurrentConfig
from charlm.config.files import parse_config
from charlm.config.suggest import name_for, suggest

ANY_TEXT = st.text(st.characters(), min_size=1)  # half a surrogate pair, too: names have them


def suggested(chars: int, *path: str) -> Config:
    return parse_config(suggest(path or ("a.txt",), chars))


@given(path=st.lists(ANY_TEXT, min_size=1, max_size=3), chars=st.integers(0, 10**12))
@example(["a.txt"], 30_000)
@example(["-"], 30_001)
@example(["builtin:python"], 10**9)
def test_what_is_suggested_is_a_config_of_the_text(path: list[str], chars: int) -> None:
    config = parse_config(suggest(tuple(path), chars))
    assert config.data.path == tuple(path)
    limits = [config.train.max_steps, config.train.max_epochs, config.train.max_seconds]
    assert sum(limit is not None for limit in limits) == 1


def test_a_longer_text_gets_a_larger_model_and_fewer_passes() -> None:
    sizes = [1, 30_000, 30_001, 300_000, 300_001, 3_000_000, 3_000_001, 10**9]
    configs = [suggested(chars) for chars in sizes]
    for less, more in itertools.pairwise(configs):
        assert isinstance(less.model, RecurrentConfig)
        assert isinstance(more.model, RecurrentConfig)
        assert less.model.hidden_size <= more.model.hidden_size
        assert less.train.batch_size <= more.train.batch_size
        if less.train.max_epochs and more.train.max_epochs:
            assert less.train.max_epochs >= more.train.max_epochs
    kinds = [str((config.model, config.train.max_epochs)) for config in configs]
    assert [kinds[i] == kinds[i + 1] for i in range(7)] == [True, False] * 3 + [True]
    assert [config.train.max_steps is None for config in configs] == [True] * 6 + [False] * 2


@given(path=st.lists(ANY_TEXT, min_size=1, max_size=2))
@example(["x" * 300])
@example(["a" * 99 + "-" * 9 + "b"])
@example(["..."])
def test_a_name_is_always_one_that_a_run_can_have(path: list[str]) -> None:
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
        ("日本.txt", "text"),
    ],
)
def test_a_run_is_named_for_its_text(path: str, name: str) -> None:
    assert name_for((path, "other.txt")) == name
