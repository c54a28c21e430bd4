"""`charlm inspect`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from charlm.cli.output import print_line, print_note, print_table
from charlm.cli.shared_options import RUNS
from charlm.cli.streams import is_standard_output
from charlm.errors import CharlmError, DataError

if TYPE_CHECKING:
    from charlm.checkpoint.format import Meta
    from charlm.data.corpus import Split
    from charlm.data.vocab import Ids
    from charlm.insight.attention import HeadScore
    from charlm.insight.search import Found
    from charlm.insight.survey import Survey

MOST_CHARS = 100_000  # characters on a page and in memory
NGRAM_CHARS = 1_000_000  # characters of the training text that the n-gram models count
MOST_SHOWN = 8  # discoveries in the terminal


def inspect(options: argparse.Namespace) -> int:
    """Write a page that shows what a network learned, and print the main results."""
    from charlm.checkpoint.read import find_checkpoint, open_checkpoint
    from charlm.checkpoint.weights import load_model
    from charlm.cli.describe import describe_model
    from charlm.evaluation.scoring import text_to_score
    from charlm.insight.report import check_free, is_report, write_report
    from charlm.insight.survey import survey

    if not 2 <= options.length <= MOST_CHARS:
        raise CharlmError(f"--length: {options.length} should be from 2 to {MOST_CHARS}")
    path = find_checkpoint(options.checkpoint, RUNS)
    paths = [options.text] if options.text else []
    split: Split = "all" if paths else options.split or "val"
    with open_checkpoint(path) as checkpoint:
        meta = checkpoint.meta
        out = options.out or (None if options.json else path.parent / "report.html")
        own = out is not None and options.out is None and is_report(out)
        overwrite = options.force or own  # its own report, at its own place
        if out is not None:
            check_free(out, overwrite)
        ids, unknown = text_to_score(meta, paths, split, options.on_unknown == "skip", print_note)
        before, ngram_text = _text_for_ngrams(meta, split, own=not paths)
        model = load_model(checkpoint, options.device, print_note)
    found = survey(model, meta, ids.head(options.length), before, path.parent)
    about = {
        "checkpoint": str(path),
        "name": meta.config.name,
        "model": describe_model(meta.config.model),
        "parameters": meta.parameters,
        "step": meta.progress.step,
        "source": options.text or f"{meta.corpus.source} ({split})",
        "unit": meta.config.data.unit,
        "unknown_chars": unknown,
        "ngram_text": ngram_text,
    }
    if out is not None:
        size = write_report(out, found, about | {"vocab": [*map(ord, meta.vocab)]}, overwrite)
    if options.json:
        print_line(json.dumps(about | found.numbers()))
    elif out is not None and not is_standard_output(out):
        _print(found, about, f"{out} ({size / 1e6:.1f} MB)", out.absolute().as_uri())
    return 0


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


def _print(found: Survey, about: dict[str, Any], report: str, link: str) -> None:
    unknown = about["unknown_chars"]
    print_table(
        {
            "report": report,
            "open": link,
            "text": f"{about['source']}, {len(found.text):,} characters"
            + f", {unknown:,} unknown characters skipped" * bool(unknown),
            "loss": f"{found.bits_per_char:.4f} bits/char",
            "found": f"a unit tracks {len(found.discoveries)} of {len(found.found)} features",
        }
    )
    for each in found.discoveries[:MOST_SHOWN]:
        print_line(f"  {_describe_found(each)}")
    for head in _best(found.heads):
        print_line(f"  {_describe_head(head)}")


def _describe_found(found: Found) -> str:
    """`position in line   c 413 of layer 1, Spearman 0.858 (chance 0.257, ...)`."""
    unit = found.units[0]
    return (
        f"{found.feature:<26} {unit.kind} {unit.index} of layer {unit.layer + 1}: {found.measure} "
        f"{unit.score:.3f} (chance {found.chance:.3f}, last two characters "
        f"{found.last_characters:.3f}, untrained {found.untrained:.3f})"
    )


def _best(heads: list[HeadScore]) -> list[HeadScore]:
    """The best head for each target, if it is a discovery.

    Args:
        heads: the best head of each target comes first.
    """
    best = {head.target: head for head in reversed(heads)}
    return [head for head in best.values() if head.discovery]


def _describe_head(head: HeadScore) -> str:
    return (
        f"{head.target:<26} head {head.head + 1} of layer {head.layer + 1}: {head.score:.0%} of "
        f"its attention (even spread {head.chance:.1%}, untrained {head.untrained:.1%})"
    )
