"""The search: scores against their definition, a planted unit, and no discovery by chance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from charlm.config import RecurrentConfig
from charlm.data.vocab import Vocab
from charlm.insight.features import Feature, read_features
from charlm.insight.record import Array, record, record_units
from charlm.insight.search import Found, search
from charlm.models import CharModel, build_model
from tests.insight.helpers import KINDS, quoted_text, with_quote_detector
from tests.models import model_config

TEXT = quoted_text(3000)
VOCAB = Vocab.of(TEXT)
IDS = VOCAB.encode(TEXT)


def fresh(kind: str, seed: int, width: int = 32) -> CharModel:
    size = {"n_embd": width, "context": 64} if kind == "gpt" else {"hidden_size": width}
    return build_model(model_config(size | {"kind": kind, "n_layer": 2}), len(VOCAB), seed)


def by_feature(found: list[Found]) -> dict[str, Found]:
    return {each.feature: each for each in found}


# --- scores ----------------------------------------------------------------------------------


def auc_by_pairs(unit: Array, holds: Array) -> float:
    """The probability that a unit is higher where the feature holds; equal values count half."""
    pairs = list(itertools.product(unit[holds], unit[~holds]))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def spearman_by_hand(a: Array, b: Array) -> float:
    def ranks(x: Array) -> list[float]:
        return [float(((x < v).sum() + (x <= v).sum()) / 2) for v in x]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("is_real", [False, True])
def test_scores_are_of_the_second_half_with_the_sign_of_the_first(
    is_real: bool, dtype: type
) -> None:
    rng = np.random.default_rng(4)
    values = np.repeat(rng.integers(0, 5, 80), 3).astype(np.float64)  # runs of three
    feature = Feature("it", values if is_real else values > 2)
    noise = rng.normal(size=(2, 240, 3)).round(1)  # rounded, so that some are equal
    units: dict[str, Array] = {"h": (noise + values[None, :, None] * [1, -1, 0.1]).astype(dtype)}
    units["h"][0, :5, 0] = [0.0, -0.0, 0.0, -0.0, 0.0]
    ids = np.zeros(240, np.uint8)
    (found,) = search(units, ids, [feature], [units], keep=6)
    assert {(unit.layer, unit.index) for unit in found.units} == set(np.ndindex(2, 3))
    for unit in found.units:
        activation = units["h"][unit.layer, :, unit.index].astype(np.float64)
        halves = [
            (activation[part], feature.values[part]) for part in (slice(120), slice(120, None))
        ]
        measure = spearman_by_hand if is_real else auc_by_pairs
        before, after = (measure(each, of) for each, of in halves)
        assert unit.sign == (-1 if before < (0 if is_real else 0.5) else 1)
        expected = after if unit.sign > 0 else (-after if is_real else 1 - after)
        assert unit.score == pytest.approx(expected, abs=1e-6)
    assert [unit.score for unit in found.units] == sorted(
        (unit.score for unit in found.units), reverse=True
    )


def test_a_function_of_the_last_two_characters_is_no_discovery() -> None:
    features = [f for f in read_features(TEXT) if f.name in ("start of a word", "after a newline")]
    noise = np.random.default_rng(1).normal(size=(1, len(IDS), 4))
    for found in search({"h": noise}, IDS, features, [{"h": noise}]):
        assert found.last_characters > 0.999  # the feature is a function of them
        assert not found.discovery


# --- discoveries -----------------------------------------------------------------------------


def test_a_planted_quote_detector_is_found_first() -> None:
    model = with_quote_detector(VOCAB, hidden_size=32, unit=13)
    config = RecurrentConfig.model_validate({"kind": "lstm", "hidden_size": 32, "input": "one_hot"})
    untrained = [record_units(build_model(config, len(VOCAB), seed), IDS) for seed in range(2)]
    results = search(record(model, IDS).units, IDS, read_features(TEXT), untrained)
    found = by_feature(results)["in quotes"]
    assert {(unit.kind, unit.index) for unit in found.units[:2]} == {("c", 13), ("h", 13)}
    assert found.units[0].score > 0.99
    assert found.units[2].score < 0.9
    assert found.discovery
    assert [each.feature for each in results if each.discovery] == ["in quotes"]
    assert results[0].feature == "in quotes"


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_network_has_no_discoveries(kind: str) -> None:
    features = read_features(TEXT)
    untrained = [record_units(fresh(kind, seed), IDS) for seed in range(3)]
    for seed in (101, 102, 103):
        found = search(record_units(fresh(kind, seed), IDS), IDS, features, untrained)
        assert len(found) > 5
        assert [each.feature for each in found if each.discovery] == []


def test_the_best_of_a_thousand_random_walks_does_not_beat_chance() -> None:
    walks = np.random.default_rng(2).normal(size=(1, len(IDS), 1000)).cumsum(axis=1)
    features = read_features(TEXT)
    found = search({"h": walks}, IDS, features, [{"h": walks[:, :, :5]}])
    quotes = by_feature(found)["in quotes"]
    assert quotes.units[0].score > 0.6  # high by chance
    assert quotes.chance > 0.6
    assert not any(each.discovery for each in found)


@pytest.mark.parametrize("text", ["", "a", "ab" * 5, "a" * 200, "\n" * 200])
def test_a_text_that_is_too_short_or_uniform_has_no_features_to_score(text: str) -> None:
    units = {"h": np.zeros((1, len(text), 2), np.float16)}
    assert search(units, np.zeros(len(text), np.uint8), read_features(text), [units]) == []
