"""What a unit is for: hold it at zero, and measure on which characters the loss rises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from charlm.config.shapes import unit_sizes
from charlm.data.vocab import Ids
from charlm.insight.record import Array, Starts, losses
from charlm.insight.search import Unit
from charlm.insight.trace import Masks
from charlm.models import CharModel
from charlm.units import bits

MAX_CHARS = 6  # in `Ablation.chars`
UNITS_AT_ONCE = 8  # ablated in one batch, one unit in each row


@dataclass(frozen=True)
class Ablation:
    """How much the loss rises when a unit is held at zero, in bits per character.

    Attributes:
        rise: (N,), at each character; NaN at the first.
        mean: the mean rise over the text.
        chars: the characters with the largest total rise, largest first. Each is a tuple of the
            id, the number of its occurrences, and their mean rise.
    """

    unit: Unit
    rise: Array
    mean: float
    chars: tuple[tuple[int, int, float], ...]

    def mean_where(self, holds: Array) -> tuple[float, float]:
        """The mean rise on characters that follow a True in `holds` (N,), and on the others."""
        rise, holds = self.rise[1:], holds[:-1]
        return _mean(rise[holds]), _mean(rise[~holds])


def ablate(
    model: CharModel, ids: Ids, units: Sequence[Unit], starts: Starts = None
) -> list[Ablation]:
    """Hold each unit at zero while `model` reads the text ids (N,), one unit at a time.

    Args:
        starts: the documents of the text, as for `record`.
    """
    ablations = []
    for first in range(0, len(units), UNITS_AT_ONCE):
        some = units[first : first + UNITS_AT_ONCE]
        nats = losses(model, ids, _masks(model, some), starts)  # (units + 1, N)
        for unit, row in zip(some, nats, strict=False):
            rise = np.asarray(bits(1.0) * (row - nats[-1]))
            ablations.append(Ablation(unit, rise, _mean(rise[1:]), _largest(ids, rise)))
    return ablations


def _masks(model: CharModel, units: Sequence[Unit]) -> Masks:
    """Masks (L, B, D) that hold one unit at zero in each row, and none in the last row."""
    L, B = model.config.n_layer, len(units) + 1
    kinds = unit_sizes(model.config).items()
    masks = {kind: torch.ones(L, B, width, device=model.device) for kind, width in kinds}
    for row, unit in enumerate(units):
        masks[unit.kind][unit.layer, row, unit.index] = 0.0
    return masks


def _largest(ids: Ids, rise: Array) -> tuple[tuple[int, int, float], ...]:
    """The characters with the largest total rise, as `Ablation.chars`."""
    sums = np.bincount(ids[1:], rise[1:])
    counts = np.bincount(ids[1:])
    largest = [int(i) for i in np.argsort(-sums, kind="stable")[:MAX_CHARS] if sums[i] > 0]
    return tuple((i, int(counts[i]), float(sums[i] / counts[i])) for i in largest)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0
