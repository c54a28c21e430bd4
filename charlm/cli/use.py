"""`charlm eval` and `charlm info`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from charlm.cli.output import print_line, print_note, print_table
from charlm.cli.shared_options import RUNS
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.checkpoint.read import Checkpoint
    from charlm.data.corpus import Split


def evaluate(options: argparse.Namespace) -> int:
    """Print how well a model predicts a text."""
    from charlm.checkpoint.read import find_checkpoint, open_checkpoint

    with open_checkpoint(find_checkpoint(options.checkpoint, RUNS)) as checkpoint:
        return _evaluate(checkpoint, options)


def _evaluate(checkpoint: Checkpoint, options: argparse.Namespace) -> int:
    from charlm.api.evaluating import score_text
    from charlm.config.files import updated

    path, meta = checkpoint.path, checkpoint.meta
    split: Split = options.split or ("all" if options.data else "val")
    config = updated(meta.config.eval, protocol=options.protocol, window=options.window)
    if options.window and config.protocol != "windows":
        raise CharlmError("--window: it needs --protocol windows")
    skip, paths = options.on_unknown == "skip", options.data or ()
    score, unknown = score_text(checkpoint, config, paths, split, skip, options.device, print_note)
    result = {
        "checkpoint": str(path),
        "data": " ".join(options.data or meta.config.data.path),
        "split": split,
        "unit": meta.config.data.unit,
        "protocol": score.protocol,
        "description": score.description,
        "chars": score.chars,
        "unknown_chars": unknown,
        "nats_per_char": score.nats_per_char,
        "bits_per_char": score.bits_per_char,
        "perplexity": score.perplexity,
    }
    if options.json:
        print_line(json.dumps(result))
    else:
        print_table(
            result
            | {
                "nats_per_char": f"{score.nats_per_char:.4f}",
                "bits_per_char": f"{score.bits_per_char:.4f}",
                "perplexity": f"{score.perplexity:.3f} per character",
                "chars": f"{score.chars:,}",
            }
        )
    return 0


def info(options: argparse.Namespace) -> int:
    """Print a description of a checkpoint."""
    from charlm.checkpoint.read import find_checkpoint, read_meta
    from charlm.cli.describe import describe_checkpoint

    path = find_checkpoint(options.checkpoint, RUNS)
    meta = read_meta(path)
    if options.json:
        print_line(json.dumps({"path": str(path)} | meta.model_dump(mode="json")))
    else:
        print_table(describe_checkpoint(path, meta))
    return 0
