"""The learning rate over a run, and the end of a run."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from charlm.config import ScheduleConfig, TrainConfig
from charlm.data.amounts import steps_per_epoch
from charlm.data.corpus import TextIds
from charlm.training.schedule import Limits, lr_scale

KINDS = ("constant", "cosine", "exponential", "wsd")
STEPS, WARMUP = 100, 20


def schedule(kind: str, **shape: float) -> Any:
    return TypeAdapter(ScheduleConfig).validate_python({"kind": kind} | shape)


def scale_at(config: Any, step: int, steps: int = STEPS, epochs: float = 0.0) -> float:
    fraction = Limits(steps, None).fraction(step, 0.0, config.warmup_steps)
    return lr_scale(config, step, fraction, epochs)


TABLE = {
    ("constant", WARMUP): 1.0,
    ("constant", STEPS - 1): 1.0,
    ("cosine", WARMUP): 1.0,
    ("cosine", 60): 0.1 + 0.9 / 2,
    ("cosine", STEPS - 1): 0.1 + 0.9 * (1 + math.cos(math.pi * 79 / 80)) / 2,
    ("cosine", STEPS): 0.1,
    ("exponential", WARMUP): 1.0,
    ("exponential", STEPS - 1): 1.0,
    ("wsd", WARMUP): 1.0,
    ("wsd", 60): 1.0,
    ("wsd", 80): 0.5,
    ("wsd", STEPS - 1): 1 / 40,
    ("wsd", STEPS): 0.0,
}


@pytest.mark.parametrize(("kind", "step"), TABLE)
def test_the_learning_rate_after_warm_up(kind: str, step: int) -> None:
    assert scale_at(schedule(kind, warmup_steps=WARMUP), step) == pytest.approx(TABLE[kind, step])


@pytest.mark.parametrize("kind", KINDS)
def test_the_learning_rate_rises_linearly_from_above_0(kind: str) -> None:
    config = schedule(kind, warmup_steps=WARMUP)
    rise = [scale_at(config, step) for step in range(WARMUP + 1)]
    assert rise == pytest.approx([(k + 1) / (WARMUP + 1) for k in range(WARMUP + 1)])
    assert rise[WARMUP] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_without_warm_up_the_first_step_has_the_full_learning_rate(kind: str) -> None:
    assert scale_at(schedule(kind), 0) == 1.0


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 500), st.integers(0, 499), st.integers(0, 499))
def test_every_step_of_a_run_has_a_factor_above_0_and_at_most_1(
    kind: str, steps: int, warmup: int, step: int
) -> None:
    config = schedule(kind, warmup_steps=warmup % steps)
    assert 0 < scale_at(config, step % steps, steps, epochs=step / 7) <= 1


def test_wsd_falls_to_its_minimum_in_the_last_part_of_a_run() -> None:
    config = schedule("wsd", decay_fraction=0.2, min_lr_ratio=0.25)
    table = {0: 1.0, 79: 1.0, 80: 1.0, 90: 0.625, 100: 0.25}
    assert {step: scale_at(config, step) for step in table} == pytest.approx(table)


def nanogpt(it: int, lr: float, low: float, warmup: int, decay_iters: int) -> float:
    """get_lr of github.com/karpathy/nanoGPT, train.py."""
    if it < warmup:
        return lr * (it + 1) / (warmup + 1)
    if it > decay_iters:
        return low
    coefficient = 0.5 * (1.0 + math.cos(math.pi * (it - warmup) / (decay_iters - warmup)))
    return low + coefficient * (lr - low)


def test_cosine_is_nanogpts_rule() -> None:
    config = schedule("cosine", warmup_steps=100, min_lr_ratio=0.1)
    for step in range(2001):
        ours = 1e-3 * scale_at(config, step, 2000)
        assert ours == pytest.approx(nanogpt(step, 1e-3, 1e-4, 100, 2000), rel=1e-12)


def char_rnn(iterations: int, per_epoch: int, decay: float, after: int) -> list[float]:
    """The learning rate of each step by github.com/karpathy/char-rnn, train.lua."""
    rate, rates = 1.0, []
    for i in range(1, iterations + 1):  # Lua counts from 1
        rates.append(rate)
        if i % per_epoch == 0 and i / per_epoch >= after:
            rate *= decay
    return rates


@pytest.mark.parametrize("after", [0, 1, 10])
def test_exponential_is_char_rnns_rule(after: int) -> None:
    config = schedule("exponential", decay=0.97, decay_after=after)
    ours = [lr_scale(config, step, 0.0, step / 5) for step in range(75)]
    assert ours == pytest.approx(char_rnn(75, 5, 0.97, after))


def test_exponential_falls_when_the_tenth_epoch_is_over() -> None:
    config = schedule("exponential")
    epochs = {0.0: 1.0, 9.99: 1.0, 10.0: 0.97, 10.99: 0.97, 11.0: 0.97**2, 15.5: 0.97**6}
    assert {e: lr_scale(config, 1, 0.0, e) for e in epochs} == pytest.approx(epochs)


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "steps", "seconds"),
    [
        ({"max_steps": 7}, 7, None),
        ({"max_epochs": 1}, 32, None),  # 1000 / 32 = 31.25, rounded up
        ({"max_epochs": 2}, 63, None),
        ({"max_epochs": 0.016}, 1, None),
        ({"max_steps": 7, "max_epochs": 1}, 7, None),
        ({"max_steps": 70, "max_epochs": 1}, 32, None),
        ({"max_seconds": 9.5}, None, 9.5),
        ({"max_steps": 7, "max_seconds": 9.5}, 7, 9.5),
    ],
)
def test_limits_are_steps_epochs_and_seconds(
    ends: dict[str, float], steps: int | None, seconds: float | None
) -> None:
    train = TrainConfig.model_validate(ends | {"batch_size": 4, "seq_len": 8})
    ids = np.zeros(1000, np.uint8)
    assert Limits.of(train, steps_per_epoch(ids, train)) == Limits(steps, seconds)


@given(
    chars=st.integers(1, 10**7),
    batch_size=st.integers(1, 100),
    seq_len=st.integers(1, 300),
    tenths=st.integers(1, 1000),
)
@example(chars=100, batch_size=5, seq_len=4, tenths=30)
@example(chars=45, batch_size=1, seq_len=1, tenths=22)  # in floating point the result is larger
def test_epochs_are_rounded_up_to_steps_without_a_floating_point_error(
    chars: int, batch_size: int, seq_len: int, tenths: int
) -> None:
    exact = math.ceil(Fraction(tenths, 10) * chars / (batch_size * seq_len))
    train = TrainConfig(batch_size=batch_size, seq_len=seq_len, max_epochs=tenths / 10)
    ids = np.broadcast_to(np.uint8(0), chars)
    assert Limits.of(train, steps_per_epoch(ids, train)).steps == exact


@given(
    lengths=st.lists(st.integers(2, 20), min_size=1, max_size=30),
    batch_size=st.integers(1, 9),
    seq_len=st.integers(1, 12),
    tenths=st.integers(1, 50),
)
def test_an_epoch_of_documents_reads_every_piece_of_them(
    lengths: list[int], batch_size: int, seq_len: int, tenths: int
) -> None:
    pieces = sum(len(range(0, length, seq_len)) for length in lengths)
    raw = {"batches": "items", "batch_size": batch_size, "seq_len": seq_len}
    train = TrainConfig.model_validate(raw | {"max_epochs": tenths / 10})
    steps = Limits.of(train, steps_per_epoch(list_of(lengths), train)).steps
    assert steps == math.ceil(Fraction(tenths, 10) * pieces / batch_size)


def list_of(lengths: list[int]) -> TextIds:
    starts = np.cumsum([0, *lengths])
    return TextIds(np.zeros(starts[-1], np.uint8), np.zeros(1, np.uint8), starts)


@pytest.mark.parametrize(
    ("limits", "step", "seconds", "reached"),
    [
        (Limits(10, None), 9, 1e9, False),
        (Limits(10, None), 10, 0.0, True),
        (Limits(None, 5.0), 10**9, 4.9, False),
        (Limits(None, 5.0), 0, 5.0, True),
        (Limits(10, 5.0), 9, 4.9, False),
        (Limits(10, 5.0), 10, 0.0, True),
        (Limits(10, 5.0), 0, 5.0, True),
    ],
)
def test_a_run_ends_at_the_limit_that_comes_first(
    limits: Limits, step: int, seconds: float, reached: bool
) -> None:
    assert limits.reached(step, seconds) is reached
    assert (limits.fraction(step, seconds) == 1.0) is reached


@pytest.mark.parametrize(
    ("limits", "step", "seconds", "warmup", "fraction"),
    [
        (Limits(10, None), 0, 99.0, 0, 0.0),
        (Limits(10, None), 5, 99.0, 0, 0.5),
        (Limits(12, None), 2, 0.0, 2, 0.0),
        (Limits(12, None), 7, 0.0, 2, 0.5),
        (Limits(12, None), 1, 0.0, 2, 0.0),  # not below 0 in the warm-up
        (Limits(10, None), 15, 0.0, 0, 1.0),  # nor above 1
        (Limits(None, 8.0), 99, 2.0, 0, 0.25),
        (Limits(10, 8.0), 1, 6.0, 0, 0.75),
        (Limits(10, 8.0), 9, 6.0, 0, 0.9),
        (Limits(1, None), 0, 0.0, 1, 0.0),
    ],
)
def test_the_share_of_a_run_that_is_done(
    limits: Limits, step: int, seconds: float, warmup: int, fraction: float
) -> None:
    assert limits.fraction(step, seconds, warmup) == pytest.approx(fraction)
