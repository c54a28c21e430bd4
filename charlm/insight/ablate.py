"""What a unit is for: hold it at zero throughout, and see on which characters the loss rises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from charlm.data.vocab import Ids
from charlm.insight.record import Array, Starts, losses
from charlm.insight.search import Unit
from charlm.insight.trace import Kept, n_layers, unit_kinds
from charlm.models import CharModel
from charlm.units import bits

ROWS = 8  # units whose loss is taken side by side


@dataclass(frozen=True)
class Ablation:
    """How much worse a network predicts without a unit, bits per character.

    Attributes:
        rise: (N,) of each character; NaN for the first.
        mean: over the text.
        chars: the ids of the characters that make up most of the rise, the first the most: the id,
            how many there are, and their mean rise.
    """

    unit: Unit
    rise: Array
    mean: float
    chars: tuple[tuple[int, int, float], ...]

    def where(self, holds: Array) -> tuple[float, float]:
        """The mean rise on characters before which a boolean (N,) holds, and on the others."""
        rise, holds = self.rise[1:], holds[:-1]
        return _mean(rise[holds]), _mean(rise[~holds])


def ablate(
    model: CharModel,
    ids: Ids,
    units: Sequence[Unit],
    starts: Starts = None,
    keep: int = 6,
) -> list[Ablation]:
    """Each unit held at zero while `model` reads the text ids (N,).

    Args:
        starts: as `record` has it.
        keep: how many characters are told of.
    """
    found = []
    for first in range(0, len(units), ROWS):
        some = units[first : first + ROWS]
        nats = losses(model, ids, _without(model, some), starts)  # the last row: with all units
        for unit, row in zip(some, nats, strict=False):
            rise = np.asarray(bits(1.0) * (row - nats[-1]))
            found.append(Ablation(unit, rise, _mean(rise[1:]), _most(ids, rise, keep)))
    return found


def _without(model: CharModel, units: Sequence[Unit]) -> Kept:
    """Factors (L, B, D) with one unit less in each row, and none less in the last."""
    L, B = n_layers(model), len(units) + 1
    device = next(model.parameters()).device
    kept = {k: torch.ones(L, B, width, device=device) for k, width in unit_kinds(model).items()}
    for row, unit in enumerate(units):
        kept[unit.kind][unit.layer, row, unit.index] = 0.0
    return kept


def _most(ids: Ids, rise: Array, keep: int) -> tuple[tuple[int, int, float], ...]:
    """The characters on which most of the rise falls."""
    sums = np.bincount(ids[1:], rise[1:])
    counts = np.bincount(ids[1:])
    best = [int(i) for i in np.argsort(-sums, kind="stable")[:keep] if sums[i] > 0]
    return tuple((i, int(counts[i]), float(sums[i] / counts[i])) for i in best)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0
