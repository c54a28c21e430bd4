"""Searches for units that track a feature of the text, against three baselines.

The score of a unit for a feature is a rank statistic, so the relation need not be linear. For a
boolean feature it is the AUC: the probability that the unit is higher where the feature holds than
where it does not. For a real feature it is Spearman's rank correlation. The sign comes from the
first half of the text, and the score from the second half. For comparison both are correlations
from -1 to 1: an AUC counts as 2 AUC - 1, the rank-biserial correlation (Cureton 1956).

The best of thousands of units always scores high. So a unit has to beat three baselines, which are
computed in the same way, on the same halves:

    chance         the best unit for the feature shifted along the text, over SHIFTS shifts. A
                   shifted feature keeps its runs, but has no relation to the text. Some features
                   equal themselves after a shift, for example a column of a table with lines of
                   equal length. They are cut into blocks instead, and the blocks are shuffled.
    last two       a table of the feature's mean after each pair of characters. It needs no memory.
    untrained      the best unit of the same network with untrained weights, over several networks.
                   Such a network still carries the last few characters.

A unit is a discovery if it closes at least MARGIN of the gap between the best baseline and a
perfect score, and is at least LEAST_GAIN above this baseline.

Shapes: N characters of the text, T characters of one half, L layers, D units of a kind in a layer.
`units` is the number of all units, L*D for each kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.insight.features import Feature
from charlm.insight.record import Array

SHIFTS = 40
MARGIN = 0.25
LEAST_GAIN = 0.05  # in correlation, for a baseline that is nearly perfect
BLOCKS = 16  # of a shuffled feature
MAX_ALIKE = 0.5  # correlation of a feature with itself after a shift
MIN_CHARS, MIN_RUNS = 20, 3  # with a feature, and without it, in each half
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Unit:
    """A unit, and its score for a feature.

    Attributes:
        sign: -1 if the unit is low where the feature is high. The score is then that of -unit.
        score: the AUC or Spearman's correlation on the second half of the text.
    """

    kind: str
    layer: int
    index: int
    sign: int
    score: float


@dataclass(frozen=True)
class Found:
    """The result of the search for one feature. All scores have the same measure.

    Attributes:
        structure: whether it is a feature of the structure of the text.
        measure: "AUC" or "Spearman".
        units: the units with the highest scores, best first.
        chance, last_characters, untrained: the scores of the baselines.
        share: the share of the text where the feature holds; for a real feature its mean.
    """

    feature: str
    structure: bool
    measure: str
    units: tuple[Unit, ...]
    chance: float
    last_characters: float
    untrained: float
    share: float
    discovery: bool

    @property
    def baseline(self) -> float:
        """The score of the best baseline."""
        return max(self.chance, self.last_characters, self.untrained)


def search(
    units: dict[str, Array],
    ids: Ids,
    features: Sequence[Feature],
    untrained: Iterable[dict[str, Array]],
    keep: int = 5,
) -> list[Found]:
    """Score all units against the features of a text.

    Args:
        units: by kind, (L, N, D).
        ids: (N,), the text.
        untrained: the units of the same network with untrained weights, on the same text. With many
            features, ten such networks are needed: the best of three is too easy to beat by luck.
        keep: the number of units in each result.

    Returns:
        One result for each feature, discoveries first, then by score above the baseline. A feature
        that is too rare in one half of the text is left out.
    """
    features = [feature for feature in features if _can_be_scored(feature)]
    if not features:
        return []
    values = np.stack([feature.values.astype(np.float64) for feature in features])  # (features, N)
    real = np.array([feature.is_real for feature in features])
    halves = _Halves(units)
    scores, signs = halves.score(values, real)  # (features, units)
    chance = np.full(len(features), -1.0)
    for unrelated in _unrelated(values):
        chance = np.maximum(chance, halves.score(unrelated, real)[0].max(1))
    fresh = np.full(len(features), -1.0)
    for each in untrained:
        fresh = np.maximum(fresh, _Halves(each).score(values, real)[0].max(1))
    found = []
    for f, feature in enumerate(features):
        best = np.argsort(-scores[f], kind="stable")[:keep]
        last_two = _last_characters(ids, values[f], feature.is_real)
        baselines = (float(chance[f]), last_two, float(fresh[f]))
        shown = [_in_measure(baseline, feature) for baseline in baselines]
        found.append(
            Found(
                feature=feature.name,
                structure=feature.structure,
                measure="Spearman" if feature.is_real else "AUC",
                units=tuple(
                    Unit(*halves.units[u], int(signs[f, u]), _in_measure(scores[f, u], feature))
                    for u in map(int, best)
                ),
                chance=shown[0],
                last_characters=shown[1],
                untrained=shown[2],
                share=float(values[f].mean()),
                discovery=is_discovery(float(scores[f, best[0]]), max(baselines)),
            )
        )
    return sorted(found, key=_sort_key, reverse=True)


def is_discovery(correlation: float, baseline: float) -> bool:
    """Whether a correlation is far enough above its baseline."""
    return correlation - baseline >= max(MARGIN * (1 - baseline), LEAST_GAIN)


def _sort_key(found: Found) -> tuple[bool, float]:
    return found.discovery, found.units[0].score - found.baseline


def _in_measure(correlation: float, feature: Feature) -> float:
    """A correlation as a score in the measure of the feature."""
    return float(correlation if feature.is_real else (1 + correlation) / 2)


def _can_be_scored(feature: Feature) -> bool:
    """Whether each half of the text has enough characters and runs of a feature."""
    for half in np.array_split(feature.values.astype(np.float64), 2):
        change = np.diff(half)
        runs = min((change > 0).sum(), (change < 0).sum())
        enough = (
            len(half) >= 2 * MIN_CHARS and len(np.unique(half)) > 2
            if feature.is_real
            else min(half.sum(), (1 - half).sum()) >= MIN_CHARS
        )
        if not enough or runs < MIN_RUNS:
            return False
    return True


def _unrelated(values: Floats) -> Iterator[Floats]:
    """Features (features, N) without a relation to the text, SHIFTS times: each one shifted, or its
    blocks shuffled if it is periodic."""
    N = values.shape[1]
    shifts = np.linspace(N / 10, N - N / 10, SHIFTS).astype(int)
    periodic = np.array([_is_periodic(each, shifts) for each in values])
    for seed, shift in enumerate(shifts):
        shifted = np.roll(values, shift, axis=1)
        if periodic.any():
            rng = np.random.default_rng(seed)
            cuts = np.sort(rng.choice(np.arange(1, N), min(BLOCKS, N) - 1, replace=False))
            blocks = np.split(np.arange(N), cuts)
            order = np.concatenate([blocks[i] for i in rng.permutation(len(blocks))])
            shifted[periodic] = values[periodic][:, order]
        yield shifted


def _is_periodic(values: Floats, shifts: NDArray[np.int64]) -> bool:
    """Whether a feature (N,) is like itself after one of the shifts. It must have several runs in
    each block: a feature with few long runs is only shifted, because shuffling would break them."""
    if (np.diff(values) != 0).sum() < 4 * BLOCKS or values.std() == 0:
        return False
    normal = (values - values.mean()) / (values.std() * np.sqrt(len(values)))
    return any(abs(float(normal @ np.roll(normal, shift))) > MAX_ALIKE for shift in shifts)


def _last_characters(ids: Ids, values: Floats, is_real: bool) -> float:
    """The correlation of a feature (N,) with a table of its means after the last two characters.

    The means are from the first half of the text. For a pair that is new in the second half the
    table has the mean after the last character, or else the overall mean.
    """
    middle = len(ids) - len(ids) // 2
    one = ids.astype(np.int64)
    two = one.copy()
    two[1:] += (one[:-1] + 1) * (int(one.max()) + 1)
    mean = np.full(len(ids), values[:middle].mean())
    for context in (one, two):
        _, numbers = np.unique(context, return_inverse=True)  # contexts numbered from 0
        counts = np.bincount(numbers[:middle], minlength=int(numbers.max()) + 1)[numbers]
        sums = np.bincount(numbers[:middle], values[:middle], minlength=int(numbers.max()) + 1)
        np.divide(sums[numbers], counts, out=mean, where=counts > 0)
    correlation, _ = _Halves({"": mean[None, :, None]}).score(values[None], np.array([is_real]))
    return float(correlation[0, 0])


class _Halves:
    """The ranks of units (L, N, D) by kind, in each half of the text.

    Attributes:
        units: the kind, layer and index of each unit.
    """

    def __init__(self, units: dict[str, Array]) -> None:
        self.units: list[tuple[str, int, int]] = [
            (kind, layer, index)
            for kind, each in units.items()
            for layer, index in np.ndindex(each.shape[0], each.shape[2])
        ]
        # (L, N, D) -> (L*D, N) for each kind
        flat = [each.transpose(0, 2, 1).reshape(-1, each.shape[1]) for each in units.values()]
        N = flat[0].shape[1]
        self._halves = slice(None, N - N // 2), slice(N - N // 2, None)
        self._ranks = [
            np.concatenate([_ranks(each[:, half]) for each in flat]) for half in self._halves
        ]
        self._stds = [np.maximum(ranks.std(1), 1e-9) for ranks in self._ranks]

    def score(self, values: Floats, real: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int64]]:
        """Correlate features (features, N) with every unit.

        Returns:
            The correlations in the second half, times the signs; and the signs of the correlations
            in the first half. Each is (features, units).
        """
        first, second = (
            self._correlate(i, values[:, half], real) for i, half in enumerate(self._halves)
        )
        signs = np.where(first < 0, -1, 1)
        return np.asarray(second * signs), signs

    def _correlate(self, half: int, values: Floats, real: NDArray[np.bool_]) -> Floats:
        """Correlations (features, units) in one half: 2 AUC - 1 for boolean rows of
        values (features, T), Spearman's for real ones, and 0 for a constant row."""
        T = values.shape[1]
        weights = np.zeros((len(values), T), np.float32)
        for row, each, is_real in zip(weights, values, real, strict=True):
            if is_real:
                ranks = _ranks(each[None])[0]
                row[:] = (ranks - ranks.mean()) / (max(float(ranks.std()), 1e-9) * T)
            elif 0 < (count := each.sum()) < T:  # (mean rank with - mean rank without) * 2 / T
                row[:] = np.where(each > 0, 1 / count, -1 / (T - count)) * 2 / T
        correlations: Floats = (weights @ self._ranks[half].T).astype(np.float64)
        correlations[real] /= self._stds[half]
        return correlations


def _ranks(values: Array) -> NDArray[np.float32]:
    """The ranks within each row (units, T), minus their mean. Equal values share their mean
    rank."""
    T = values.shape[1]
    ranks = np.empty(values.shape, np.float32)
    for row, each in zip(ranks, values, strict=True):
        numbers = _half_numbers(each) if values.dtype == np.float16 else _numbers(each)
        counts = np.bincount(numbers)
        row[:] = (np.cumsum(counts) - (counts + 1) / 2)[numbers] - (T - 1) / 2
    return ranks


def _numbers(values: Array) -> NDArray[np.int64]:
    """Integers (T,) in the order of the values."""
    return np.asarray(np.unique(values.astype(float), return_inverse=True)[1])


def _half_numbers(values: Array) -> NDArray[np.int64]:
    """The same for float16, without sorting: their bits, in the order of the numbers."""
    bits = values.view(np.uint16).astype(np.int64)
    return np.where(bits <= 0x8000, (bits & 0x7FFF) + 0x8000, 0xFFFF - bits + 1)  # -0.0 is 0.0
