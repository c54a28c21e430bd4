"""All there is to say of a network and a text, in one go, and as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charlm.checkpoint.format import Meta
from charlm.data.corpus import TextIds
from charlm.data.vocab import Ids
from charlm.insight.ablate import Ablation, ablate
from charlm.insight.attention import HeadScore, Stretch, look, score_heads
from charlm.insight.features import Feature, read_features
from charlm.insight.gates import GateUse, gate_use
from charlm.insight.growth import Growth, read_growth
from charlm.insight.record import Activations, Array, Starts, record, record_units
from charlm.insight.search import Found, Unit, search
from charlm.insight.surprisal import (
    Group,
    NGram,
    Passage,
    by_class,
    by_distance,
    by_line_position,
    by_word_position,
    compare_ngrams,
    worst_passages,
)
from charlm.models import GPT, CharModel, build_model
from charlm.units import bits

UNTRAINED = 3  # networks with fresh weights to compare with
MOST_ABLATED = 6


@dataclass(frozen=True)
class Tested:
    """A discovered unit held at zero: the mean rise of the loss, bits per character, where its
    feature holds (or is above its median) and elsewhere."""

    feature: str
    ablation: Ablation
    where: float
    elsewhere: float


@dataclass(frozen=True)
class Survey:
    """What was found out about a network on a text of N characters."""

    text: str  # one character for each id
    activations: Activations
    bits: Array  # (N,), what each character costs; NaN for the first
    found: list[Found]
    tested: list[Tested]
    gates: list[GateUse]
    stretch: Stretch | None  # of a GPT
    heads: list[HeadScore]
    groups: dict[str, list[Group]]
    passages: list[Passage]
    ngrams: list[NGram]  # none where there is no text to count them in
    growth: Growth

    @property
    def bits_per_char(self) -> float:
        return float(np.nanmean(self.bits))

    @property
    def discoveries(self) -> list[Found]:
        return [each for each in self.found if each.discovery]

    def numbers(self) -> dict[str, Any]:
        """All but what is told of each character and unit, ready for JSON."""
        return {
            "chars": len(self.text),
            "bits_per_char": self.bits_per_char,
            "search": [asdict(each) | {"baseline": each.baseline} for each in self.found],
            "ablations": [self._numbers_of(each) for each in self.tested],
            "gates": [_lists(asdict(use)) for use in self.gates],
            "heads": [asdict(head) for head in self.heads],
            "bits": {name: [asdict(g) for g in groups] for name, groups in self.groups.items()},
            "worst_passages": [asdict(passage) for passage in self.passages],
            "ngrams": [asdict(model) for model in self.ngrams],
            "growth": asdict(self.growth),
        }

    def _numbers_of(self, tested: Tested) -> dict[str, Any]:
        ablation = tested.ablation
        char_of = dict(zip(self.activations.ids.tolist(), self.text, strict=True))
        return {
            "feature": tested.feature,
            "unit": asdict(ablation.unit),
            "rise": ablation.mean,
            "rise_where": tested.where,
            "rise_elsewhere": tested.elsewhere,
            "chars": [
                {"char": char_of[i], "count": n, "rise": rise} for i, n, rise in ablation.chars
            ],
        }


def survey(
    model: CharModel, meta: Meta, text_ids: TextIds, before: Ids | None, folder: Path
) -> Survey:
    """Look at everything `model` does on a text of N characters.

    Args:
        meta: of the model's checkpoint.
        before: the ids (M,) of a text to count n-grams in; None for no such comparison.
        folder: the run's, for how its text grew.

    Raises:
        BrokenModelError: an output of the model is not finite.
    """
    ids, starts = text_ids[:], text_ids.starts
    text = "".join(map(meta.vocab.__getitem__, ids))
    told = record(model, ids, starts)
    device = next(model.parameters()).device
    fresh = [
        build_model(meta.config.model, len(meta.vocab), seed).to(device).eval()
        for seed in range(UNTRAINED)
    ]
    features = read_features(text)
    found = search(told.units, ids, features, [record_units(each, ids) for each in fresh])
    gpts = [each for each in (model, *fresh) if isinstance(each, GPT)]
    costs = np.asarray(bits(1.0) * told.nats)
    return Survey(
        text,
        told,
        costs,
        found,
        _test(model, ids, starts, found, features),
        gate_use(told.gates),
        look(gpts[0], ids) if gpts else None,
        score_heads(gpts[0], ids, text, gpts[1:]) if gpts else [],
        {
            "class": by_class(text, costs),
            "position in word": by_word_position(text, costs),
            "position in line": by_line_position(text, costs),
            "distance": by_distance(text, costs),
        },
        worst_passages(costs),
        [] if before is None else compare_ngrams(told.nats, before, ids),
        read_growth(folder),
    )


def _test(
    model: CharModel,
    ids: Ids,
    starts: Starts,
    found: Sequence[Found],
    features: Sequence[Feature],
) -> list[Tested]:
    """Hold the best unit of each discovery at zero, each unit once."""
    best: dict[tuple[str, int, int], tuple[str, Unit]] = {}
    for each in found:
        if each.discovery:
            unit = each.units[0]
            best.setdefault((unit.kind, unit.layer, unit.index), (each.feature, unit))
    chosen = list(best.values())[:MOST_ABLATED]
    values = {feature.name: feature.values for feature in features}
    tested = []
    ablations = ablate(model, ids, [unit for _, unit in chosen], starts)
    for (feature, _), ablation in zip(chosen, ablations, strict=True):
        of = values[feature]
        holds = of if of.dtype == np.bool_ else of > np.median(of)
        tested.append(Tested(feature, ablation, *ablation.where(holds)))
    return tested


def _lists(fields: dict[str, Any]) -> dict[str, Any]:
    """Arrays as lists of numbers of three digits."""
    return {
        key: np.round(value.astype(np.float64), 4).tolist()
        if isinstance(value, np.ndarray)
        else value
        for key, value in fields.items()
    }
