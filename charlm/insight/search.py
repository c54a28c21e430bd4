"""Which units keep track of what: every unit against every feature, held out, and against luck.

A unit's score for a feature is a rank statistic, so it asks for no linear relation. For a boolean
feature it is the AUC, the chance that the unit is higher where the feature holds than where not;
for a real one Spearman's rank correlation. The sign is taken from the first half of the text, the
score from the second. To compare the two, both are read as a correlation from -1 to 1: that of an
AUC is 2 AUC - 1, the rank-biserial correlation (Cureton 1956).

With thousands of units the best always looks good. Three others go the same way, halves and all,
and the best of these is what a unit has to beat:

    luck           the best of all units, where the feature is shifted round the text against them:
                   it keeps its runs and its rhythm, and tells nothing any more (the best of
                   SHIFTS shifts)
    last two       what the two characters just read tell of the feature, by a table of means:
                   to know that takes no memory
    untrained      the best unit of the same network with fresh weights, which echoes the last few
                   characters without having learnt anything (the best of several)

A discovery closes at least MARGIN of what the best of the three leaves to a perfect score, and is
at least LEAST_GAIN above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.insight.features import Feature
from charlm.insight.record import Array

SHIFTS = 40
MARGIN = 0.25
LEAST_GAIN = 0.05  # in correlation; where the baseline is all but perfect
FEWEST, FEWEST_RUNS = 20, 3  # characters with and without a feature, and its runs, in each half
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Unit:
    """A unit's place and its score: AUC or Spearman's correlation, of the second half. Where
    `sign` is -1 the unit is low where the feature is high, and the score is of its opposite."""

    kind: str
    layer: int
    index: int
    sign: int
    score: float


@dataclass(frozen=True)
class Found:
    """What the search has to say of one feature; all scores are of the same measure."""

    feature: str
    measure: str  # "AUC" or "Spearman"
    units: tuple[Unit, ...]  # the best, the best first
    luck: float
    last_characters: float
    untrained: float
    share: float  # of the text where the feature holds, or the mean of a real one
    discovery: bool

    @property
    def baseline(self) -> float:
        """What a unit has to beat."""
        return max(self.luck, self.last_characters, self.untrained)


def search(
    units: dict[str, Array],
    ids: Ids,
    features: Sequence[Feature],
    untrained: Sequence[dict[str, Array]],
    keep: int = 5,
) -> list[Found]:
    """Score all units (L, N, D), by kind, against the features of the text ids (N,).

    Features too rare in a half of this text are left out. Discoveries come first, and of these
    those that are furthest above their baseline.

    Args:
        untrained: the units of the same network with fresh weights, on the same text.
        keep: how many units of a feature are told of.
    """
    features = [feature for feature in features if _can_be_scored(feature)]
    if not features:
        return []
    values = np.stack([feature.values.astype(np.float64) for feature in features])  # (F, N)
    real = np.array([feature.is_real for feature in features])
    halves = _Halves(units)
    scores, signs = halves.score(values, real)  # (F, U)
    luck = np.full(len(features), -1.0)
    N = len(ids)
    for shift in np.linspace(N / 10, N - N / 10, SHIFTS).astype(int):
        luck = np.maximum(luck, halves.score(np.roll(values, shift, axis=1), real)[0].max(1))
    fresh = np.full(len(features), -1.0)
    for each in untrained:
        fresh = np.maximum(fresh, _Halves(each).score(values, real)[0].max(1))
    found = []
    for f, feature in enumerate(features):
        best = np.argsort(-scores[f], kind="stable")[:keep]
        two = _last_characters(ids, values[f], feature.is_real)
        others = (float(luck[f]), two, float(fresh[f]))
        shown = [_in_measure(other, feature) for other in others]
        found.append(
            Found(
                feature=feature.name,
                measure="Spearman" if feature.is_real else "AUC",
                units=tuple(
                    Unit(*halves.place(u), int(signs[f, u]), _in_measure(scores[f, u], feature))
                    for u in best
                ),
                luck=shown[0],
                last_characters=shown[1],
                untrained=shown[2],
                share=float(values[f].mean()),
                discovery=is_discovery(float(scores[f, best[0]]), max(others)),
            )
        )
    return sorted(found, key=_standing, reverse=True)


def is_discovery(correlation: float, baseline: float) -> bool:
    """Whether a correlation closes enough of what the baseline leaves to 1, and is worth it."""
    return correlation - baseline >= max(MARGIN * (1 - baseline), LEAST_GAIN)


def _standing(found: Found) -> tuple[bool, float]:
    return found.discovery, found.units[0].score - found.baseline


def _in_measure(correlation: float, feature: Feature) -> float:
    """A correlation in the feature's own measure."""
    return float(correlation if feature.is_real else (1 + correlation) / 2)


def _can_be_scored(feature: Feature) -> bool:
    """Whether each half of the text has enough of a feature, and often enough."""
    for half in np.array_split(feature.values.astype(np.float64), 2):
        change = np.diff(half)
        runs = min((change > 0).sum(), (change < 0).sum())
        enough = (
            len(half) >= 2 * FEWEST and len(np.unique(half)) > 2
            if feature.is_real
            else min(half.sum(), (1 - half).sum()) >= FEWEST
        )
        if not enough or runs < FEWEST_RUNS:
            return False
    return True


def _last_characters(ids: Ids, values: Floats, is_real: bool) -> float:
    """The score of what the first half of the text has as the mean of a feature (N,) after the
    same two characters; after the same one, or at all, where these are new."""
    middle = len(ids) - len(ids) // 2
    one = ids.astype(np.int64)
    two = one.copy()
    two[1:] += (one[:-1] + 1) * (int(one.max()) + 1)
    mean = np.full(len(ids), values[:middle].mean())
    for context in (one, two):
        _, places = np.unique(context, return_inverse=True)
        counts = np.bincount(places[:middle], minlength=int(places.max()) + 1)[places]
        sums = np.bincount(places[:middle], values[:middle], minlength=int(places.max()) + 1)
        np.divide(sums[places], counts, out=mean, where=counts > 0)
    score, _ = _Halves({"": mean[None, :, None]}).score(values[None], np.array([is_real]))
    return float(score[0, 0])


class _Halves:
    """The ranks of units (L, N, D) by kind, in each half of the text, ready to be scored."""

    def __init__(self, units: dict[str, Array]) -> None:
        self._shapes = {kind: each.shape for kind, each in units.items()}
        # (L, N, D) -> (L*D, N), all kinds one below the other: U units
        flat = [each.transpose(0, 2, 1).reshape(-1, each.shape[1]) for each in units.values()]
        N = flat[0].shape[1]
        self._middle = N - N // 2
        self._ranks = [
            np.concatenate([_ranks(each[:, part]) for each in flat])
            for part in (slice(None, self._middle), slice(self._middle, None))
        ]
        self._spreads = [np.maximum(ranks.std(1), 1e-9) for ranks in self._ranks]

    def place(self, unit: int) -> tuple[str, int, int]:
        """Kind, layer and index of a unit."""
        for kind, (layers, _, width) in self._shapes.items():
            if unit < layers * width:
                return kind, int(unit // width), int(unit % width)
            unit -= layers * width
        raise IndexError(unit)

    def score(self, values: Floats, real: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.int64]]:
        """The correlation of features (F, N) with every unit in the second half, and the sign it
        has in the first, by which it is turned: each (F, U)."""
        first, second = (
            self._correlate(part, values[:, where], real)
            for part, where in ((0, slice(None, self._middle)), (1, slice(self._middle, None)))
        )
        signs = np.where(first < 0, -1, 1)
        return np.asarray(second * signs), signs

    def _correlate(self, part: int, values: Floats, real: NDArray[np.bool_]) -> Floats:
        """2 AUC - 1 for boolean rows of values (F, T), Spearman's for real ones; 0 where a row
        does not vary: (F, U)."""
        T = values.shape[1]
        weights = np.zeros((len(values), T), np.float32)
        for row, each, is_real in zip(weights, values, real, strict=True):
            if is_real:
                ranks = _ranks(each[None])[0]
                row[:] = (ranks - ranks.mean()) / (max(float(ranks.std()), 1e-9) * T)
            elif 0 < (on := each.sum()) < T:  # (mean rank with - mean rank without) * 2 / T
                row[:] = np.where(each > 0, 1 / on, -1 / (T - on)) * 2 / T
        correlations: Floats = (weights @ self._ranks[part].T).astype(np.float64)
        correlations[real] /= self._spreads[part]
        return correlations


def _ranks(values: Array) -> NDArray[np.float32]:
    """The ranks within each row (U, T), less their mean; equals share theirs."""
    T = values.shape[1]
    if values.dtype == np.float16:  # as integers of the same order, which are sorted much sooner
        bits = (values + np.float16(0)).view(np.int16)  # no -0
        values = np.where(bits < 0, bits ^ np.int16(0x7FFF), bits)
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    differs = ordered[:, 1:] != ordered[:, :-1]
    places = np.broadcast_to(np.arange(T, dtype=np.int32), values.shape)
    edge = np.ones((len(values), 1), np.bool_)
    begins, ends = np.hstack([edge, differs]), np.hstack([differs, edge])
    first = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, places, T)[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape, np.float32)
    np.put_along_axis(ranks, order, ((first + last) / 2 - (T - 1) / 2).astype(np.float32), axis=1)
    return ranks
