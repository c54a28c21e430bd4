"""The loss of rounded weights, beside that of the exact ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.checkpoint.read import Checkpoint
from charlm.checkpoint.weights import read_model
from charlm.config import EvalConfig
from charlm.data.corpus import TextIds
from charlm.errors import DataError
from charlm.evaluation.evaluate import evaluate
from charlm.evaluation.scoring import text_to_score
from charlm.models import CharModel

OPERATIONS = 3e10  # multiplications for each of the two losses: a few seconds
LEAST_CHARS, MOST_CHARS = 2_000, 50_000
ROWS = 8  # pieces of the text that a recurrent network reads side by side


def measure_losses(
    checkpoint: Checkpoint, rounded: Mapping[str, NDArray[np.float32]]
) -> tuple[float, float, int] | str:
    """Score the start of the validation text with the exact and with the rounded weights.

    Only the cache of texts is searched: a path in a checkpoint of unknown origin is not opened.

    Returns:
        The losses in nats per character, exact and rounded, and the number of characters; or why
        they could not be measured.
    """
    meta = checkpoint.meta
    try:
        text, _ = text_to_score(meta, (), "val", skip_unknown=True, only_cached=True)
    except DataError:
        return "the text that the model was trained on is not in the cache"
    length = int(OPERATIONS / meta.parameters)
    ids = text.head(min(MOST_CHARS, max(LEAST_CHARS, length)))
    model = read_model(checkpoint).eval()

    exact = _loss(model, ids)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(rounded[name])))
    return exact, _loss(model, ids), len(ids) - 1


def _loss(model: CharModel, ids: TextIds) -> float:
    config = EvalConfig(protocol="items" if ids.starts is not None else "stream")
    return evaluate(model, ids, config, seed=0, rows=ROWS).nats_per_char
