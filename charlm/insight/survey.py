"""Runs every analysis on a network and a text, and returns the results as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charlm.checkpoint.format import Meta
from charlm.data.corpus import TextIds
from charlm.data.vocab import Ids
from charlm.insight import surprisal
from charlm.insight.ablate import Ablation, ablate
from charlm.insight.attention import AttentionWindow, HeadScore, attention_window, score_heads
from charlm.insight.features import Feature, distinct, read_features
from charlm.insight.gates import GateUse, gate_use
from charlm.insight.growth import Growth, read_growth
from charlm.insight.network import EmbeddingMap, Part, embedding_map, parts_of
from charlm.insight.record import Activations, Array, Starts, record, record_units
from charlm.insight.search import Found, Unit, search
from charlm.insight.structure import read_structure
from charlm.models import GPT, CharModel, build_model
from charlm.units import bits

UNTRAINED, UNTRAINED_GPTS = 10, 3  # networks with untrained weights, for units and for heads
MAX_ABLATED = 6  # units


@dataclass(frozen=True)
class FeatureAblation:
    """A discovered unit held at zero.

    Attributes:
        feature: the feature that the unit tracks.
        rise_where: the mean rise of the loss in bits per character, on the characters that come
            after a character at which the feature holds, or is above its median.
        rise_elsewhere: the mean rise on the other characters.
    """

    feature: str
    ablation: Ablation
    rise_where: float
    rise_elsewhere: float


@dataclass(frozen=True)
class Survey:
    """The results for a network and a text of N characters.

    Attributes:
        text: one character for each id.
        network: the parts of the network, from the input to the output.
        embeddings: the characters of the vocabulary on a plane.
        bits: (N,), the surprisal of each character; NaN for the first.
        found: one result for each feature, discoveries first.
        attention: None without a GPT. Then `heads` is empty, too.
        groups: by name, the characters grouped by class, position and distance.
        ngrams: empty if there is no text in which n-grams can be counted.
    """

    text: str
    network: list[Part]
    embeddings: EmbeddingMap
    activations: Activations
    bits: Array
    found: list[Found]
    ablations: list[FeatureAblation]
    gates: list[GateUse]
    attention: AttentionWindow | None
    heads: list[HeadScore]
    groups: dict[str, list[surprisal.Group]]
    passages: list[surprisal.Passage]
    ngrams: list[surprisal.NGram]
    growth: Growth

    @property
    def bits_per_char(self) -> float:
        """The mean of `bits`."""
        return float(np.nanmean(self.bits))

    @property
    def discoveries(self) -> list[Found]:
        """The features that a unit tracks."""
        return [each for each in self.found if each.discovery]

    def numbers(self) -> dict[str, Any]:
        """The results as JSON data, without the values of each character and unit."""
        return {
            "chars": len(self.text),
            "bits_per_char": self.bits_per_char,
            "network": [asdict(part) for part in self.network],
            "embeddings": _lists(asdict(self.embeddings)),
            "search": [self._search_numbers(each) for each in self.found],
            "ablations": [self._ablation_numbers(each) for each in self.ablations],
            "gates": [_lists(asdict(use)) for use in self.gates],
            "heads": [asdict(head) for head in self.heads],
            "bits": {name: [asdict(g) for g in groups] for name, groups in self.groups.items()},
            "worst_passages": [asdict(passage) for passage in self.passages],
            "ngrams": [asdict(model) for model in self.ngrams],
            "growth": asdict(self.growth),
        }

    def _search_numbers(self, found: Found) -> dict[str, Any]:
        fields = asdict(found)
        # `charlm inspect --json` keeps the key `luck` for this baseline: scripts may read it
        return fields | {"luck": fields.pop("chance"), "baseline": found.baseline}

    def _ablation_numbers(self, of_feature: FeatureAblation) -> dict[str, Any]:
        ablation = of_feature.ablation
        char_of = dict(zip(self.activations.ids.tolist(), self.text, strict=True))
        return {
            "feature": of_feature.feature,
            "unit": asdict(ablation.unit),
            "rise": ablation.mean,
            "rise_where": of_feature.rise_where,
            "rise_elsewhere": of_feature.rise_elsewhere,
            "chars": [
                {"char": char_of[i], "count": n, "rise": rise} for i, n, rise in ablation.chars
            ],
        }


def survey(
    model: CharModel, meta: Meta, text_ids: TextIds, ngram_ids: Ids | None, folder: Path
) -> Survey:
    """Run every analysis on `model` and a text of N characters.

    Args:
        meta: of the model's checkpoint.
        ngram_ids: the ids of the text in which n-grams are counted; None for no n-gram models.
        folder: the run folder, for its samples and losses.

    Raises:
        BrokenModelError: an output of the model is not finite.
    """
    ids, starts = text_ids[:], text_ids.starts
    text = "".join(map(meta.vocab.__getitem__, ids))
    activations = record(model, ids, starts)
    features = distinct([*read_features(text), *read_structure(text)])
    fresh = (record_units(each, ids) for each in _untrained(model, meta, UNTRAINED))
    found = search(activations.units, ids, features, fresh)
    char_bits = np.asarray(bits(1.0) * activations.nats)
    return Survey(
        text,
        parts_of(model),
        embedding_map(model, meta.vocab),
        activations,
        char_bits,
        found,
        _ablate_best(model, ids, starts, found, features),
        gate_use(activations.gates),
        attention_window(model, ids) if isinstance(model, GPT) else None,
        _score_heads(model, meta, ids, text),
        {
            "class": surprisal.by_class(text, char_bits),
            "position in word": surprisal.by_word_position(text, char_bits),
            "position in line": surprisal.by_line_position(text, char_bits),
            "distance": surprisal.by_distance(text, char_bits),
        },
        surprisal.worst_passages(char_bits),
        [] if ngram_ids is None else surprisal.compare_ngrams(activations.nats, ngram_ids, ids),
        read_growth(folder),
    )


def _score_heads(model: CharModel, meta: Meta, ids: Ids, text: str) -> list[HeadScore]:
    """The scores of a GPT's heads; none for another network."""
    if not isinstance(model, GPT):
        return []
    fresh = [each for each in _untrained(model, meta, UNTRAINED_GPTS) if isinstance(each, GPT)]
    return score_heads(model, ids, text, fresh)


def _untrained(model: CharModel, meta: Meta, count: int) -> Iterator[CharModel]:
    """The same network with untrained weights, `count` times; one at a time, to save memory."""
    for seed in range(count):
        yield build_model(meta.config.model, len(meta.vocab), seed).to(model.device).eval()


def _ablate_best(
    model: CharModel, ids: Ids, starts: Starts, found: Sequence[Found], features: Sequence[Feature]
) -> list[FeatureAblation]:
    """Hold the best unit of each discovery at zero, each unit once."""
    best: dict[tuple[str, int, int], tuple[str, Unit]] = {}
    for each in found:
        if each.discovery:
            unit = each.units[0]
            best.setdefault((unit.kind, unit.layer, unit.index), (each.feature, unit))
    chosen = list(best.values())[:MAX_ABLATED]
    by_name = {feature.name: feature for feature in features}
    results = []
    ablations = ablate(model, ids, [unit for _, unit in chosen], starts)
    for (feature, _), ablation in zip(chosen, ablations, strict=True):
        values = by_name[feature].values
        holds = values > np.median(values) if by_name[feature].is_real else values
        results.append(FeatureAblation(feature, ablation, *ablation.mean_where(holds)))
    return results


def _lists(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with arrays as lists of numbers with four decimals."""
    return {
        key: np.round(value.astype(np.float64), 4).tolist()
        if isinstance(value, np.ndarray)
        else value
        for key, value in fields.items()
    }
