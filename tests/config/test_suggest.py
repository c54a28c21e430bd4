"""Default settings for a text that has no config."""

from __future__ import annotations

import itertools
from dataclasses import astuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config import RecurrentConfig
from charlm.config.files import parse_config
from charlm.config.suggest import (
    KINDS,
    LAPTOP,
    Speed,
    choose,
    explain,
    fit_heads,
    name_for,
    suggest,
)

ANY_TEXT = st.text(st.characters(), min_size=1)  # with lone surrogates, as in file names


SPEEDS = st.builds(
    Speed, st.floats(0, 1e-5), st.floats(1e-13, 1e-8), st.floats(0, 1e-8)
)  # from a fast GPU to a slow laptop
CHARS, SECONDS = st.integers(0, 10**10), st.floats(0.01, 1e6)


@given(
    st.lists(ANY_TEXT, min_size=1, max_size=3),
    *(st.sampled_from(sorted(KINDS)), CHARS, SECONDS, SPEEDS),
)
def test_a_suggestion_is_a_valid_config_of_the_text(
    path: list[str], kind: str, chars: int, seconds: float, speed: Speed
) -> None:
    choice = choose(kind, chars, seconds, speed)
    config = parse_config(suggest(tuple(path), choice))
    assert config.data.path == tuple(path)
    assert config.model == choice.model
    assert config.model.kind == kind
    assert (config.train.max_steps, config.train.max_seconds) == (choice.steps, None)
    timed = parse_config(suggest(tuple(path), choice, seconds)).train
    assert timed.max_seconds == seconds
    assert timed.max_steps == (choice.steps if choice.enough else None)
    assert choice.steps > 1.5 * config.train.schedule.warmup_steps


@given(st.sampled_from(sorted(KINDS)), CHARS, SECONDS, SPEEDS)
def test_a_chosen_run_takes_less_than_its_time(
    kind: str, chars: int, seconds: float, speed: Speed
) -> None:
    choice = choose(kind, chars, seconds, speed)
    possible = speed.chars(choice.width, seconds, choice.batch_size * choice.seq_len)
    if choice.chars > 1e4:  # a shorter run has batches of the smallest size
        assert choice.chars <= possible


@given(st.sampled_from(sorted(KINDS)), CHARS, SECONDS, SPEEDS, st.floats(1, 100))
def test_more_time_and_a_longer_text_give_no_smaller_model(
    kind: str, chars: int, seconds: float, speed: Speed, times: float
) -> None:
    width = choose(kind, chars, seconds, speed).width
    assert choose(kind, chars, times * seconds, speed).width >= width
    assert choose(kind, round(times * chars), seconds, speed).width >= width
    faster = Speed(*(it / times for it in astuple(speed)))
    assert choose(kind, chars, seconds, faster).width >= width


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_length_of_a_sequence_can_be_set(kind: str) -> None:
    settings = suggest(("a.txt",), choose(kind, 10**6, 60, LAPTOP))
    config = parse_config(settings, ["train.seq_len|model.context=48", f"model.kind={kind}"])
    assert config.train.seq_len == 48


@pytest.mark.parametrize("seconds", [1, 60, 600, 6000])
def test_the_width_of_a_gpt_can_be_set(seconds: float) -> None:
    for width, key in itertools.product(
        (2, 64, 200, 510, 16384), ("model.n_embd", "model.hidden_size|model.n_embd")
    ):
        settings = suggest(("a.txt",), choose("gpt", 10**7, seconds, LAPTOP))
        overrides = [f"{key}={width}", "model.kind=gpt"]
        fit_heads(settings, overrides)
        config = parse_config(settings, overrides)
        assert config.model.width == width


def test_a_model_that_is_there_keeps_its_width() -> None:
    short, long = (choose("lstm", 10**6, seconds, LAPTOP, width=300) for seconds in (60, 600))
    assert short.width == long.width == 300
    assert short.chars < long.chars


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("width", [1, 3, 5])
def test_a_checkpoint_keeps_its_model_also_one_that_is_never_suggested(
    kind: str, width: int
) -> None:
    size = {"n_embd": width, "n_head": 1, "position": "learned"}  # rope needs an even head width
    size = size if kind == "gpt" else {"hidden_size": width}
    raw = {"name": "a", "data": {"path": "a.txt"}, "model": {"kind": kind, **size}}
    like = parse_config(raw)
    choice = choose(kind, 10**5, 60, LAPTOP, like.model.width)
    assert parse_config(suggest(("b.txt",), choice, like=like)).model == like.model


def test_what_is_read_often_gets_dropout_and_a_long_text_does_not() -> None:
    short, long = (choose("lstm", chars, 300, LAPTOP) for chars in (30_000, 100_000_000))
    assert short.dropout > 0.3
    assert (long.dropout, long.enough) == (0, False)
    assert long.epochs < 1


def test_a_short_text_needs_no_more_than_some_time() -> None:
    hour, day = (choose("lstm", 30_000, seconds, LAPTOP) for seconds in (3600, 86400))
    assert hour == day
    assert hour.enough
    assert "earlier" in explain(hour, 30_000, 3600)[2]


def test_the_explanation_says_what_was_chosen_and_for_what() -> None:
    choice = choose("gpt", 2_000_000, 600, LAPTOP)
    first, second, third = explain(choice, 2_000_000, 600)
    assert first.startswith("chosen for 2,000,000 characters in 10 minutes: gpt, 4 layers of ")
    assert f"{choice.chars:,} characters" in second
    assert third.startswith("a larger model would see too few characters in this time")


def test_speed_is_the_time_of_the_layers_and_of_the_optimizer() -> None:
    speed = Speed(per_width=2e-6, per_weight=3e-9, per_step=5e-8)
    step_s = 50 * (2e-6 * 10 + 3e-9 * 100) + 5e-8 * 1000
    assert speed.chars(10, 7.0, 50) == pytest.approx(7.0 / step_s * 50)


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


@pytest.mark.parametrize("model", ["gpt", "gru", "lstm", "mlp"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_overrides_can_set_another_kind_than_suggested(model: str, optimizer: str) -> None:
    overrides = [f"model.kind={model}", f"train.optimizer.kind={optimizer}"]
    choice = choose("lstm", 1000, 60, LAPTOP)
    config = parse_config(suggest(("a.txt",), choice), overrides)
    assert (config.model.kind, config.train.optimizer.kind) == (model, optimizer)
    if optimizer == "muon":
        assert config.train.optimizer.weight_decay == 0.1
    if isinstance(config.model, RecurrentConfig) and model == "lstm":
        assert config.model.hidden_size == choice.width
