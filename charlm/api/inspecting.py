"""Looking into a network: the analyses of charlm.insight for a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.api import arguments
from charlm.api.evaluating import ON_UNKNOWN, choose_split, path_of
from charlm.api.model import Model
from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import Checkpoint, open_checkpoint
from charlm.config.describe import describe_model
from charlm.data.corpus import Split
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.machine import limit_spinning

if TYPE_CHECKING:
    from charlm.insight.survey import Survey

MOST_CHARS = 100_000  # characters on a page and in memory
NGRAM_CHARS = 1_000_000  # characters of the training text that the n-gram models count


@arguments.hinted
def inspect(
    checkpoint: Model | str | Path | None = None,
    data: str | Path | None = None,
    *,
    split: Split | None = None,
    length: int = 5000,
    out: str | Path | None = None,
    force: bool = False,
    on_unknown: str = "error",
    device: str = "auto",
) -> Survey:
    """Find what a network learned, as `charlm inspect` does.

    Args:
        checkpoint: a model, a checkpoint file or a run folder. The default is the newest run under
            checkpoints/.
        data: a text to read; None for the text that the model was trained on.
        split: train, val, test or all; the default is val, and with `data` all.
        length: the number N of characters to read, at most 100,000.
        out: a file for the page for a browser; None for no page.
        force: whether to overwrite this file.
        on_unknown: error, or skip to leave out characters that are not in the vocabulary.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        Among others `discoveries` (the units that track a feature), `bits` (N,) and `activations`:
        units and gates by name, (L, N, D).

    Raises:
        TypeError, ValueError: an argument has a wrong type or value.
        CharlmError: the checkpoint, the text or the device is not available, or the page cannot be
            written.
    """
    limit_spinning(5_000)
    from charlm.insight.report import write_report
    from charlm.outputs import check_free

    arguments.integer("length", length, 2, MOST_CHARS)
    arguments.one_of("on_unknown", on_unknown, ON_UNKNOWN)
    text, chosen = None if data is None else str(data), choose_split(split, data)
    if out is not None:
        check_free(Path(out), "report", force)
    with open_checkpoint(path_of(checkpoint)) as opened:
        skip = on_unknown == "skip"
        found, about = survey_text(opened, text, chosen, length, skip, device, arguments.notify)
        vocab = [*map(ord, opened.meta.vocab)]
    if out is not None:
        write_report(Path(out), found, about | {"vocab": vocab}, force)
    return found


def survey_text(
    checkpoint: Checkpoint,
    text: str | None,
    split: Split,
    length: int,
    skip_unknown: bool,
    device: str,
    notify: Callable[[str], None],
) -> tuple[Survey, dict[str, Any]]:
    """Run every analysis on the model of a checkpoint and the first `length` characters of a text.

    Args:
        text: a path; None for the text of the model.

    Returns:
        The survey, and a description of the model and the text.

    Raises:
        CharlmError: see `inspect`.
    """
    from charlm.checkpoint.weights import load_model
    from charlm.evaluation.scoring import text_to_score
    from charlm.insight.survey import survey

    path, meta = checkpoint.path, checkpoint.meta
    paths = [text] if text else []
    ids, unknown = text_to_score(meta, paths, split, skip_unknown, notify)
    before, ngram_text = _text_for_ngrams(meta, split, own=not paths)
    model = load_model(checkpoint, device, notify)
    about = {
        "checkpoint": str(path),
        "name": meta.config.name,
        "model": describe_model(meta.config.model),
        "parameters": meta.parameters,
        "step": meta.progress.step,
        "source": text or f"{meta.corpus.source} ({split})",
        "unit": meta.config.data.unit,
        "unknown_chars": unknown,
        "ngram_text": ngram_text,
    }
    return survey(model, meta, ids.head(length), before, path.parent), about


def _text_for_ngrams(meta: Meta, split: Split, own: bool) -> tuple[Ids | None, str]:
    """The end of the training text, in which n-grams are counted, and a description of it.

    If it cannot be used, None and the reason. To inspect another text, the training text is only
    looked up in the cache: a path in a checkpoint is not opened for that.
    """
    from charlm.evaluation.scoring import text_to_score

    if own and split in ("train", "all"):
        return None, "they would be counted in the text that they predict"
    try:
        train, _ = text_to_score(meta, (), "train", skip_unknown=True, only_cached=not own)
    except DataError as error:
        return None, f"the training text is not available: {error}"
    ids = train.stretch(max(0, len(train) - NGRAM_CHARS), None)[:]
    return ids, f"the last {len(ids):,} characters of the training text"
