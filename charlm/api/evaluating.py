"""Measuring how well a model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from charlm.api import arguments
from charlm.api.model import Model
from charlm.api.training import Paths, paths_of
from charlm.checkpoint.read import Checkpoint, find_checkpoint, open_checkpoint
from charlm.config import EvalConfig
from charlm.config.files import as_argument, updated
from charlm.data.corpus import Split
from charlm.errors import CharlmError
from charlm.machine import limit_spinning

if TYPE_CHECKING:
    from charlm.evaluation.evaluate import Score

ON_UNKNOWN = ("error", "skip")


@arguments.hinted
def evaluate(
    checkpoint: Model | str | Path | None = None,
    data: Paths | None = None,
    *,
    split: Split | None = None,
    protocol: str | None = None,
    window: int | None = None,
    on_unknown: str = "error",
    device: str = "auto",
) -> Score:
    """Measure how well a model predicts a text, as `charlm eval` does.

    Args:
        checkpoint: a model, a checkpoint file or a run folder. The default is the newest run under
            checkpoints/.
        data: the text, as for `charlm.train`; None for the text that the model was trained on.
        split: train, val, test or all; the default is val, and with `data` all.
        protocol: stream, windows or items; the default is that of the model's config.
        window: the number of characters per window, for the protocol windows.
        on_unknown: error, or skip to leave out characters that are not in the vocabulary.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        The sum of the loss in `nats`, the number of scored `chars`, `nats_per_char`,
        `bits_per_char` and `perplexity`, the `protocol` and its `description`.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value.
        CharlmError: the checkpoint, the text or the device is not available, or the protocol does
            not fit the text.
    """
    limit_spinning(5_000)
    paths, chosen = paths_of(data), choose_split(split, data)
    arguments.one_of("on_unknown", on_unknown, ON_UNKNOWN)
    with open_checkpoint(path_of(checkpoint)) as opened:
        config = updated(opened.meta.config.eval, as_argument, protocol=protocol, window=window)
        if window is not None and config.protocol != "windows":
            raise ValueError(f'window={window} needs protocol="windows"')
        skip = on_unknown == "skip"
        return score_text(opened, config, paths, chosen, skip, device, arguments.notify)[0]


def path_of(checkpoint: Model | str | Path | None) -> Path:
    """The checkpoint file of a model, or of an argument of `charlm.load`."""
    if isinstance(checkpoint, Model):
        return checkpoint.path
    return find_checkpoint(None if checkpoint is None else Path(checkpoint))


def choose_split(split: Split | None, data: object) -> Split:
    """This split; its default depends on whether there is a text other than the model's own."""
    if split is None:
        return "all" if data else "val"
    arguments.one_of("split", split, get_args(Split))
    return split


def score_text(
    checkpoint: Checkpoint,
    config: EvalConfig,
    paths: Sequence[str],
    split: Split,
    skip_unknown: bool,
    device: str,
    notify: Callable[[str], None],
) -> tuple[Score, int]:
    """Score a text with the model of a checkpoint.

    Args:
        paths: the text; empty for that of the model.

    Returns:
        The score, and the number of unknown characters that were left out.

    Raises:
        CharlmError: see `evaluate`.
    """
    from charlm.checkpoint.weights import load_model
    from charlm.evaluation.evaluate import evaluate as measure
    from charlm.evaluation.scoring import text_to_score

    meta = checkpoint.meta
    ids, unknown = text_to_score(meta, paths, split, skip_unknown, notify)
    if unknown:
        notify(f"{unknown:,} unknown characters skipped")
    score = measure(load_model(checkpoint, device, notify), ids, config, meta.config.train.seed)
    if not math.isfinite(score.nats):
        raise CharlmError(
            f"{checkpoint.path}: the loss is not finite: the weights are broken; use another "
            "checkpoint"
        )
    return score, unknown
