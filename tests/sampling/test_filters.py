"""The filters compared with their definitions, and draws with the exact distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from charlm.config import SampleConfig
from charlm.sampling.filters import (
    Floats,
    distribution,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise,
    softmax,
)
from charlm.sampling.generate import choose
from tests.sampling import assert_distributed

quick = settings(deadline=None)


def probabilities(logits: Floats, temperature: float) -> Floats:
    return normalised(softmax(logits, temperature))


def normalised(weights: Floats) -> Floats:
    """Weights that sum to 1."""
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


logits_ = st.lists(st.floats(-50, 50), min_size=1, max_size=12).map(np.array)
weights = st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(any)
probs_ = weights.map(lambda counts: np.array(counts, dtype=np.float64) / sum(counts))


# --- temperature -----------------------------------------------------------------------------


@quick
@given(logits_, st.floats(0.05, 20))
def test_probabilities_are_the_softmax_of_scaled_logits(logits: Floats, t: float) -> None:
    top = max(logits)
    terms = [math.exp((x - top) / t) for x in logits]
    expected = [term / math.fsum(terms) for term in terms]
    assert probabilities(logits, t) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@quick
@given(logits_, st.floats(0.05, 20), st.floats(-1000, 1000))
def test_adding_a_constant_to_all_logits_changes_nothing(
    logits: Floats, t: float, constant: float
) -> None:
    moved = probabilities(logits + constant, t)
    assert moved == pytest.approx(probabilities(logits, t), rel=1e-6, abs=1e-9)


@quick
@given(logits_)
def test_temperature_0_is_greedy_and_takes_the_first_of_equals(logits: Floats) -> None:
    probs = softmax(logits, 0)
    best = list(logits).index(max(logits))
    assert list(probs) == [float(i == best) for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-300])
def test_a_temperature_towards_0_is_greedy_without_overflow(temperature: float) -> None:
    assert list(softmax(np.array([1.0, 3.0, 2.0]), temperature)) == [0, 1, 0]


# --- top_k -----------------------------------------------------------------------------------


def likeliest(probs: Floats) -> list[int]:
    """All ids from the likeliest on; equal probabilities in the order of the ids."""
    return sorted(range(len(probs)), key=lambda i: (-probs[i], i))


def only(probs: Floats, kept: list[int]) -> list[float]:
    """The distribution without the ids that are not kept."""
    total = math.fsum(probs[i] for i in kept)
    return [probs[i] / total if i in kept else 0.0 for i in range(len(probs))]


@quick
@given(probs_, st.integers(1, 15))
def test_top_k_keeps_the_k_likeliest_in_proportion(probs: Floats, k: int) -> None:
    before = probs.copy()
    kept = normalised(keep_top_k(probs, k))
    assert kept == pytest.approx(only(probs, likeliest(probs)[:k]))
    assert np.count_nonzero(kept) == min(k, np.count_nonzero(probs))
    assert (probs == before).all()


# --- top_p -----------------------------------------------------------------------------------


@quick
@given(weights, st.integers(1, 1000))
def test_top_p_keeps_the_fewest_likeliest_that_sum_to_p(counts: list[int], milli: int) -> None:
    total, p = sum(counts), milli / 1000
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], i))
    # integers have no rounding errors; the next test is for sums that are exactly p
    sums = list(itertools.accumulate(counts[i] for i in order))
    assume(all(1000 * s != milli * total for s in sums[:-1]))
    size = 1 + sum(1000 * s < milli * total for s in sums)
    probs = np.array(counts, dtype=np.float64) / total
    expected = only(probs, order[:size])
    assert normalised(keep_top_p(3 * probs, p)) == pytest.approx(expected)


EXACT = [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.2, 0.1], [0.6, 0.2, 0.1, 0.1], [1.0, 0.0]]


@pytest.mark.parametrize("probs", EXACT, ids=str)
def test_top_p_stops_at_the_character_that_reaches_p_exactly(probs: list[float]) -> None:
    for count, p in enumerate(itertools.accumulate(probs), start=1):
        kept = np.count_nonzero(keep_top_p(np.array(probs), min(p, 1.0)))
        assert kept == min(count, np.count_nonzero(probs)), p


@quick
@given(probs_)
def test_top_p_of_1_keeps_all_and_a_tiny_one_keeps_only_the_likeliest(probs: Floats) -> None:
    assert normalised(keep_top_p(probs, 1.0)) == pytest.approx(list(probs))
    assert normalised(keep_top_p(probs, 1e-9)) == pytest.approx(only(probs, likeliest(probs)[:1]))


# --- min_p -----------------------------------------------------------------------------------


@quick
@given(weights, st.integers(1, 1000))
def test_min_p_keeps_ids_above_a_share_of_the_likeliest(counts: list[int], milli: int) -> None:
    assume(all(1000 * n != milli * max(counts) for n in counts if n != max(counts)))
    kept = [i for i, n in enumerate(counts) if 1000 * n >= milli * max(counts)]  # integers
    probs = np.array(counts, dtype=np.float64) / sum(counts)
    assert normalised(keep_min_p(3 * probs, milli / 1000)) == pytest.approx(only(probs, kept))


# --- repetition penalty ----------------------------------------------------------------------


@quick
@given(logits_, st.floats(0.1, 10), st.data())
def test_the_penalty_lowers_the_logits_of_recent_characters_once(
    logits: Floats, penalty: float, data: st.DataObject
) -> None:
    recent = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=20))
    before = logits.copy()
    expected = [
        x if i not in recent else x / penalty if x > 0 else x * penalty
        for i, x in enumerate(logits)
    ]
    assert list(penalise(logits, np.array(recent, np.uint8), penalty)) == expected
    assert (logits == before).all()


def test_only_the_last_characters_are_penalise() -> None:
    config = SampleConfig(temperature=1.0, repetition_penalty=2.0)
    long_ago = np.array([0] + [1] * 64)
    expected = probabilities(np.array([2.0, 1.0, 2.0]), 1.0)
    found = normalised(distribution(np.array([2.0, 2.0, 2.0]), config, long_ago))
    assert found == pytest.approx(expected)


# --- draw ------------------------------------------------------------------------------------

BELOW_1 = math.nextafter(1.0, 0.0)


def draw_one(probs: Floats, uniform: float) -> int:
    return int(draw(probs, np.array(uniform)))


@pytest.mark.parametrize(
    ("uniform", "expected"),
    [
        (0.0, 1),
        (math.nextafter(0.25, 0), 1),
        (0.25, 3),  # a bound belongs to the character above it
        (math.nextafter(0.75, 0), 3),
        (0.75, 4),
        (BELOW_1, 4),
    ],
)
def test_a_draw_is_where_the_cumulative_probability_exceeds_the_uniform_number(
    uniform: float, expected: int
) -> None:
    assert draw_one(np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]), uniform) == expected


@quick
@given(probs_, st.floats(0, 1, exclude_max=True))
def test_a_character_with_probability_0_is_never_drawn(probs: Floats, uniform: float) -> None:
    for u in (uniform, 0.0, BELOW_1):
        assert probs[draw_one(probs, u)] > 0


@quick
@given(logits_, st.floats(0, 1, exclude_max=True))
def test_each_character_is_drawn_for_an_interval_as_long_as_its_probability(
    logits: Floats, uniform: float
) -> None:
    probs = probabilities(logits, 1.0)
    id_ = draw_one(probs, uniform)
    start = math.fsum(probs[:id_])
    assert start - 1e-12 <= uniform <= start + probs[id_] + 1e-12


# --- all filters -----------------------------------------------------------------------------

LOGITS = np.array([2.0, -1.0, 0.5, 0.5, 3.0, -4.0, 1.0, 0.0, 2.5, -0.5])
RECENT = np.array([4, 4, 5])
DRAWS = 200_000


def exact(config: SampleConfig) -> list[float]:
    """The distribution according to the definitions of the filters."""
    scores = [
        x if i not in RECENT else x * config.repetition_penalty ** (1 if x < 0 else -1)
        for i, x in enumerate(LOGITS)
    ]
    terms = [math.exp(x / config.temperature) for x in scores]
    probs = np.array([term / sum(terms) for term in terms])
    if config.top_k is not None:
        probs = np.array(only(probs, likeliest(probs)[: config.top_k]))
    if config.top_p is not None:
        p, order = config.top_p, likeliest(probs)
        size = next(n for n in range(1, 11) if sum(probs[i] for i in order[:n]) >= p - 1e-12)
        probs = np.array(only(probs, order[:size]))
    if config.min_p is not None:
        kept = [i for i in range(10) if probs[i] >= config.min_p * max(probs)]
        probs = np.array(only(probs, kept))
    return list(probs)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0},
        {"temperature": 0.5},
        {"temperature": 1.7, "top_k": 4},
        {"temperature": 1.7, "top_p": 0.8},
        {"temperature": 1.7, "min_p": 0.2},
        {"temperature": 1.0, "repetition_penalty": 1.5},
        {"temperature": 1.0, "top_k": 3, "top_p": 0.8},  # keeps 2; in the other order 3
        {"temperature": 1.0, "top_k": 1, "top_p": 0.5},
        {"temperature": 1.3, "top_k": 6, "top_p": 0.9, "min_p": 0.3, "repetition_penalty": 0.7},
    ],
    ids=str,
)
def test_draws_have_the_exact_distribution(settings: dict[str, float]) -> None:
    config = SampleConfig.model_validate(settings)
    uniform = np.random.default_rng(12).random(DRAWS)
    logits, recent = np.broadcast_to(LOGITS, (DRAWS, 10)), np.broadcast_to(RECENT, (DRAWS, 3))
    assert_distributed(choose(logits, config, uniform, recent), np.array(exact(config)))


def test_each_text_is_filtered_on_its_own() -> None:
    generator = np.random.default_rng(1)
    logits, recent = generator.normal(size=(7, 10)), generator.integers(0, 10, (7, 4))
    full = {"top_k": 6, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.2}
    for config in (SampleConfig(temperature=0), SampleConfig.model_validate(full)):
        together = distribution(logits, config, recent)
        for row, (alone, before) in enumerate(zip(logits, recent, strict=True)):
            assert list(together[row]) == list(distribution(alone, config, before))


def test_the_filters_do_not_change_a_greedy_choice() -> None:
    for top_k, top_p, min_p in itertools.product((None, 3), (None, 0.1), (None, 0.5)):
        config = SampleConfig(temperature=0, top_k=top_k, top_p=top_p, min_p=min_p)
        assert choose(LOGITS[None], config, np.array([0.5])) == 4
