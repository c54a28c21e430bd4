#!/usr/bin/env python3
"""What --minutes chooses, beside the settings of char-rnn and of nanoGPT for as many minutes.

    scripts/bench minutes RESULTS.jsonl [--minutes 1 5 20] [--recipes chosen] [TEXT ...]

Each run is a `charlm train` of its own, and takes its minutes. A tenth of each text is held out as
the test text; the losses are bits per character on its first 100,000 characters. The columns of
seconds are those of the whole command. The n-gram is the best one of `charlm data stats`, on the
same test text, for short texts. Each run appends a line to RESULTS.jsonl, and is not
repeated: the same command continues. Without a TEXT, the table of RESULTS.jsonl is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comparing import machine, show

import charlm
from charlm.data.corpus import Corpus, open_corpus
from charlm.data.yardsticks import ngram_bits
from charlm.evaluation.evaluate import evaluate

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
RECIPES = {"chosen": None, "char-rnn": "char-rnn.yaml", "nanoGPT": "nanogpt-cpu.yaml"}
TEST_CHARS = 100_000
ROWS = 16  # pieces of it that a recurrent network reads side by side
ORDER, NGRAM_CHARS = 8, 2_000_000  # the n-gram's order, and the longest text it is measured on
Result = dict[str, Any]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    options.add_argument("texts", type=Path, nargs="*", metavar="TEXT")
    options.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 20], metavar="M")
    options.add_argument("--lists", nargs="*", default=[], metavar="NAME", help="texts of lines")
    options.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    asked = options.parse_args()
    done = read(asked.results)
    for minutes in asked.minutes:
        for text in asked.texts:
            for recipe in asked.recipes:
                if (text.stem, minutes, recipe) not in done:
                    result = measure(text, minutes, recipe, text.stem in asked.lists)
                    with asked.results.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(result) + "\n")
    show(rows(read(asked.results)))


def read(results: Path) -> dict[tuple[str, float, str], Result]:
    """The results so far, by text, minutes and recipe."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    found = map(json.loads, lines)
    return {(it["text"], it["minutes"], it["recipe"]): it for it in found}


def measure(text: Path, minutes: float, recipe: str, is_list: bool) -> Result:
    """Train a model in a folder of its own, and evaluate it on the test text."""
    settings = ["data.test_fraction=0.1", *["data.documents=lines"] * is_list]
    command = [sys.executable, "-m", "charlm", "train", "--name", "run"]
    command += ["--data", str(text.resolve())]
    if config := RECIPES[recipe]:
        limits = ["max_steps=null", "max_epochs=null", f"max_seconds={60 * minutes:g}"]
        settings += [f"train.{limit}" for limit in limits]
        settings += ["train.batches=items"] * (is_list and recipe == "char-rnn")
        command += ["--config", str(CONFIGS / config)]
    else:
        command += ["--minutes", f"{minutes:g}"]
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        command += [word for setting in settings for word in ("--set", setting)]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        seconds = time.monotonic() - started
        model = charlm.load(Path(folder, "checkpoints", "run"))
        corpus = open_corpus(model.config.data)
        how = model.config.eval.model_copy(update={"protocol": "items" if is_list else "stream"})
        test = corpus.split("test").head(TEST_CHARS)
        bits = evaluate(model.torch_model(), test, how, seed=0, rows=ROWS).bits_per_char
    return {
        "text": text.stem,
        "minutes": minutes,
        "recipe": recipe,
        "bits": bits,
        "seconds": round(seconds, 1),
        "model": model.config.model.model_dump(),
        "steps": model.meta.progress.step,
        "ngram": ngram(corpus) if recipe == "chosen" else None,
        "machine": machine(),
    }


def ngram(corpus: Corpus) -> float | None:
    """Bits per character of the best n-gram model on the test text; None for a long text."""
    train, test = corpus.split("train"), corpus.split("test").head(TEST_CHARS)
    return min(ngram_bits(train[:], test[:], ORDER)) if len(train) <= NGRAM_CHARS else None


def rows(done: dict[tuple[str, float, str], Result]) -> Iterator[dict[str, object]]:
    """The rows of the table: one for each text and time, the best loss in bold."""
    for text, minutes in dict.fromkeys((text, minutes) for text, minutes, _ in done):
        own = {recipe: done.get((text, minutes, recipe)) for recipe in RECIPES}
        best = min(it["bits"] for it in own.values() if it)
        row: dict[str, object] = {"text": text, "minutes": f"{minutes:g}"}
        for recipe, it in own.items():
            mark = "**" if it and it["bits"] == best else ""
            row[recipe] = f"{mark}{it['bits']:.3f}{mark}" if it else "–"
        chosen = own["chosen"]
        row["n-gram"] = f"{chosen['ngram']:.3f}" if chosen and chosen["ngram"] else "–"
        row["seconds"] = ", ".join(f"{it['seconds']:.0f}" for it in own.values() if it)
        yield row


if __name__ == "__main__":
    main()
