"""`charlm sample`, `charlm eval`, `charlm info`: what is done with a checkpoint."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.arguments import RUNS
from charlm.cli.tables import print_table
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.data.corpus import Split
    from charlm.data.vocab import Ids, Vocab
    from charlm.training.checkpoint import Meta


def sample(options: argparse.Namespace) -> int:
    """Write text to standard output."""
    from charlm.config.files import updated
    from charlm.data.text import clean, read_whole
    from charlm.sampling.generate import generate, until
    from charlm.training.weights import load_model

    path, meta = _open_checkpoint(options)
    data = meta.config.data
    config = updated(
        meta.config.sample,
        prompt=read_whole(options.prompt_file, data) if options.prompt_file else options.prompt,
        length=options.length,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )
    items = data.documents == "lines"
    number = (10 if items else 1) if options.num_samples is None else options.num_samples
    if number < 1:
        raise CharlmError(f"--num-samples: {number} is below 1")
    stop = options.stop or ("\n" if items else None)
    vocab = meta.vocabulary
    if options.prompt is None and options.prompt_file is None:
        options.on_unknown = "skip"  # the config's prompt is a wish, of this text or another
    prompt = _encode(vocab, "".join(clean([config.prompt], data)), options)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4))
    _note(f"{path}, temperature {config.temperature:g}, seed {seed}")
    model = load_model(path, meta, options.device)
    for i in range(number):
        if number > 1 and not items:
            _note(f"sample {i + 1} of {number}")
        _write(vocab.decode(prompt))
        characters = generate(model, vocab, prompt, config, seed, i)
        for character in until(characters, stop) if stop else characters:
            _write(character)
        if i + 1 < number or items or sys.stdout.isatty():
            _write("\n")
    return 0


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _note(text: str) -> None:
    """To a person at a terminal; a log or a pipe has no use for it."""
    if sys.stderr.isatty():
        print(f"charlm: {text}", file=sys.stderr)


def _encode(vocab: Vocab, prompt: str, options: argparse.Namespace) -> Ids:
    """The ids of a prompt; unknown characters are an error, or left out and counted, as asked."""
    if options.on_unknown == "skip":
        ids, skipped = vocab.encode_known(prompt)
        if skipped:
            _warn_unknown(skipped)
        return ids
    try:
        return vocab.encode(prompt)
    except CharlmError as error:
        raise CharlmError(f"the prompt: {error}; --on-unknown skip leaves such out") from error


def _warn_unknown(count: int) -> None:
    print(f"charlm: note: {count:,} unknown characters left out", file=sys.stderr)


def evaluate(options: argparse.Namespace) -> int:
    """Print how well a model predicts a text."""
    from charlm.config.files import updated
    from charlm.training import evaluate as evaluation
    from charlm.training.scoring import text_to_score
    from charlm.training.weights import load_model

    path, meta = _open_checkpoint(options)
    split: Split = options.split or ("all" if options.data else "val")
    config = updated(meta.config.eval, protocol=options.protocol, window=options.window)
    if options.window and config.protocol != "windows":
        raise CharlmError("--window: it goes with --protocol windows")
    ids, unknown = text_to_score(meta, options.data or (), split, options.on_unknown == "skip")
    if unknown:
        _warn_unknown(unknown)
    model = load_model(path, meta, options.device)
    score = evaluation.evaluate(model, ids, config, meta.config.train.seed)
    if not math.isfinite(score.nats):
        raise CharlmError(f"{path}: its loss is not finite: the weights are broken; take another")
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
        print(json.dumps(result))
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
    """Print what a checkpoint is."""
    from charlm.describe import describe_checkpoint

    path, meta = _open_checkpoint(options)
    if options.json:
        print(json.dumps({"path": str(path)} | meta.model_dump(mode="json")))
    else:
        print_table(describe_checkpoint(path, meta))
    return 0


def _open_checkpoint(options: argparse.Namespace) -> tuple[Path, Meta]:
    from charlm.training.checkpoint import find_checkpoint, read_meta

    path = find_checkpoint(options.checkpoint, RUNS)
    return path, read_meta(path)
