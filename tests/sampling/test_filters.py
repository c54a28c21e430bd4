"""Filters against their definitions, and draws against the exact distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from charlm.config import SampleConfig
from charlm.sampling.filters import Floats, draw, keep_top_k, keep_top_p, probabilities
from charlm.sampling.generate import choose

quick = settings(deadline=None)
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
    probs = probabilities(logits, 0)
    best = list(logits).index(max(logits))
    assert list(probs) == [float(i == best) for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [1e-3, 1e-12, 1e-300])
def test_a_temperature_towards_0_is_greedy_without_overflow(temperature: float) -> None:
    assert list(probabilities(np.array([1.0, 3.0, 2.0]), temperature)) == [0, 1, 0]


@pytest.mark.parametrize("temperature", [-1e-9, -1.0])
def test_a_negative_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="is below 0"):
        probabilities(np.zeros(3), temperature)


# --- top_k -----------------------------------------------------------------------------------


def likeliest(probs: Floats) -> list[int]:
    """Ids from the likeliest on, of equal ones the first in the vocabulary."""
    return sorted(range(len(probs)), key=lambda i: (-probs[i], i))


def only(probs: Floats, kept: list[int]) -> list[float]:
    total = math.fsum(probs[i] for i in kept)
    return [probs[i] / total if i in kept else 0.0 for i in range(len(probs))]


@quick
@given(probs_, st.integers(1, 15))
def test_top_k_keeps_the_k_likeliest_in_proportion(probs: Floats, k: int) -> None:
    before = probs.copy()
    kept = keep_top_k(probs, k)
    assert kept == pytest.approx(only(probs, likeliest(probs)[:k]))
    assert np.count_nonzero(kept) == min(k, np.count_nonzero(probs))
    assert (probs == before).all()


@pytest.mark.parametrize("k", [0, -1])
def test_top_k_below_1_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="is below 1"):
        keep_top_k(np.ones(2) / 2, k)


# --- top_p -----------------------------------------------------------------------------------


@quick
@given(weights, st.integers(1, 1000))
def test_top_p_keeps_as_few_of_the_likeliest_as_make_up_p(counts: list[int], milli: int) -> None:
    total, p = sum(counts), milli / 1000
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], i))
    # in whole numbers, where no sum is rounded; where p is reached exactly see the test below
    sums = list(itertools.accumulate(counts[i] for i in order))
    assume(all(1000 * s != milli * total for s in sums[:-1]))
    size = 1 + sum(1000 * s < milli * total for s in sums)
    probs = np.array(counts, dtype=np.float64) / total
    expected = only(probs, order[:size])
    assert keep_top_p(probs, p) == pytest.approx(expected)


EXACT = [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.4, 0.3, 0.2, 0.1], [0.6, 0.2, 0.1, 0.1], [1.0, 0.0]]


@pytest.mark.parametrize("probs", EXACT, ids=str)
def test_top_p_stops_at_the_character_that_reaches_p_exactly(probs: list[float]) -> None:
    for count, p in enumerate(itertools.accumulate(probs), start=1):
        kept = np.count_nonzero(keep_top_p(np.array(probs), min(p, 1.0)))
        assert kept == min(count, np.count_nonzero(probs)), p


@quick
@given(probs_)
def test_top_p_1_keeps_all_and_a_tiny_one_only_the_likeliest(probs: Floats) -> None:
    assert keep_top_p(probs, 1.0) == pytest.approx(list(probs))
    assert keep_top_p(probs, 1e-9) == pytest.approx(only(probs, likeliest(probs)[:1]))


@pytest.mark.parametrize("p", [0.0, -0.1, 1.0001])
def test_top_p_outside_0_to_1_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="not above 0 and at most 1"):
        keep_top_p(np.ones(2) / 2, p)


# --- draw ------------------------------------------------------------------------------------

BELOW_1 = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("uniform", "drawn"),
    [
        (0.0, 1),
        (math.nextafter(0.25, 0), 1),
        (0.25, 3),  # a border belongs to what is above it
        (math.nextafter(0.75, 0), 3),
        (0.75, 4),
        (BELOW_1, 4),
    ],
)
def test_a_draw_is_where_the_cumulated_probabilities_pass_the_uniform(
    uniform: float, drawn: int
) -> None:
    assert draw(np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]), uniform) == drawn


@quick
@given(probs_, st.floats(0, 1, exclude_max=True))
def test_a_draw_is_never_of_an_impossible_character(probs: Floats, uniform: float) -> None:
    for u in (uniform, 0.0, BELOW_1):
        assert probs[draw(probs, u)] > 0


@quick
@given(logits_, st.floats(0, 1, exclude_max=True))
def test_a_draw_from_a_softmax_has_the_share_it_should(logits: Floats, uniform: float) -> None:
    probs = probabilities(logits, 1.0)
    below = math.fsum(probs[: (drawn := draw(probs, uniform))])
    assert below - 1e-12 <= uniform <= below + probs[drawn] + 1e-12


# --- all together ----------------------------------------------------------------------------

LOGITS = np.array([2.0, -1.0, 0.5, 0.5, 3.0, -4.0, 1.0, 0.0, 2.5, -0.5])
DRAWS = 20_000


def exact(temperature: float, top_k: int | None, top_p: float | None) -> list[float]:
    """The distribution by the definitions, one filter after the other."""
    terms = [math.exp(x / temperature) for x in LOGITS]
    probs = np.array([term / sum(terms) for term in terms])
    if top_k is not None:
        probs = np.array(only(probs, likeliest(probs)[:top_k]))
    if top_p is not None:
        order = likeliest(probs)
        size = next(n for n in range(1, 11) if sum(probs[i] for i in order[:n]) >= top_p - 1e-12)
        probs = np.array(only(probs, order[:size]))
    return list(probs)


def one_in_a_thousand(freedom: int) -> float:
    """What chi-square exceeds so seldom: its cube root is nearly normal (Wilson, Hilferty 1931)."""
    if freedom == 0:
        return 0.0
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 3.09 * math.sqrt(spread)) ** 3


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1.0, None, None),
        (0.5, None, None),
        (1.7, 4, None),
        (1.7, None, 0.8),
        (1.0, 3, 0.8),  # of the three: two. The other way round it would be three
        (1.0, 1, 0.5),
    ],
)
def test_twenty_thousand_draws_have_the_exact_distribution(
    temperature: float, top_k: int | None, top_p: float | None
) -> None:
    config = SampleConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    generator = np.random.default_rng(12)
    drawn = [choose(LOGITS, config, generator) for _ in range(DRAWS)]
    counts = np.bincount(drawn, minlength=len(LOGITS))
    expected = DRAWS * np.array(exact(temperature, top_k, top_p))
    possible = expected > 0
    assert not counts[~possible].any()
    chi_square = float(((counts - expected)[possible] ** 2 / expected[possible]).sum())
    assert chi_square <= one_in_a_thousand(int(possible.sum()) - 1)


def test_greedy_takes_no_notice_of_the_other_filters() -> None:
    for top_k, top_p in itertools.product((None, 3), (None, 0.1)):
        config = SampleConfig(temperature=0, top_k=top_k, top_p=top_p)
        assert choose(LOGITS, config, np.random.default_rng(0)) == 4


def test_every_choice_takes_one_number_from_the_generator() -> None:
    for config in (SampleConfig(), SampleConfig(temperature=0), SampleConfig(top_k=2, top_p=0.5)):
        generator, counter = np.random.default_rng(1), np.random.default_rng(1)
        choose(LOGITS, config, generator)
        counter.random()
        assert generator.random() == counter.random()
