"""`charlm inspect`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.arguments import RUNS
from charlm.cli.tables import print_table
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.data.corpus import Split
    from charlm.data.vocab import Ids
    from charlm.insight.survey import Survey
    from charlm.training.checkpoint import Meta

NGRAM_CHARS = 1_000_000  # of the training text, for the n-gram models
MOST_TOLD = 5  # findings in the terminal


def inspect(options: argparse.Namespace) -> int:
    """Write a page that shows what a network learned, and print what was found."""
    from charlm.insight.report import refusal, write_report
    from charlm.insight.survey import survey
    from charlm.training.checkpoint import find_checkpoint, read_meta
    from charlm.training.scoring import text_to_score
    from charlm.training.weights import load_model

    path = find_checkpoint(options.checkpoint, RUNS)
    meta = read_meta(path)
    out = options.out or (None if options.json else path.parent / "report.html")
    if out is not None and out.exists() and (not options.force or out.is_dir()):
        raise refusal(out)
    if options.length < 2:
        raise CharlmError(f"--length: {options.length} is below 2")
    paths = [options.text] if options.text else []
    split: Split = options.split or ("all" if paths else "val")
    ids, unknown = text_to_score(meta, paths, split, options.on_unknown == "skip")
    before, why_not = _before(meta, bool(paths), split)
    model = load_model(path, meta, options.device)
    found = survey(model, meta, ids.head(options.length), before, path.parent)
    about = _about(path, meta, options.text, split) | {"unknown_chars": unknown}
    about |= {"ngram_source": "" if before is None else why_not, "no_ngrams": why_not}
    if out is not None:
        write_report(out, found, about | {"vocab": list(map(ord, meta.vocab))}, options.force)
    if options.json:
        print(json.dumps(about | found.numbers()))
    else:
        _print(found, about, out)
    return 0
