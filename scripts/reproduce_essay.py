"""The essay: an LSTM for each of its texts, and what the essay says about them.

All that is said about the essay is from A. Karpathy, "The Unreasonable Effectiveness of Recurrent
Neural Networks", karpathy.github.io/2015/05/21/rnn-effectiveness, May 21, 2015.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from reproduce_runs import Part, Run, kept, part, state_of, table

import charlm
from charlm.data.library import KNOWN, have
from charlm.errors import CharlmError
from charlm.insight.features import read_features
from charlm.insight.growth import read_growth
from charlm.insight.survey import Survey
from charlm.units import bits

TEMPERATURES = (0.2, 0.5, 0.8, 1.0, 1.3)
INSPECTED, SHOWN, BEFORE = 10_000, 700, 150  # characters: read, shown, and shown before a quotation
QUOTES = ("in quotes", "in double quotes", "in single quotes")
LINES = {"data.documents": "lines", "train.batches": "items", "train.seq_len": 32}


class Text(NamedTuple):
    """A text of the essay; texts for charlm, the essay's own first; what the essay reports."""

    title: str
    sources: tuple[str, ...]
    published: str


TEXTS = {
    "graham": Text("Paul Graham's essays", (), "1 MB; LSTM 2x512, dropout 0.5"),
    "shakespeare": Text(
        "Shakespeare", ("shakespeare", "tinyshakespeare"), "4.4 MB; RNN 3x512, a few hours"
    ),
    "wikipedia": Text("Wikipedia", ("enwik8",), "96 MB; LSTM 3x700, 7 epochs: 1.57 bits"),
    "latex": Text("LaTeX on algebraic geometry", ("stacks",), "16 MB; deep LSTM"),
    "linux": Text(
        "source code of Linux", ("linux", "builtin:python"),
        "474 MB; LSTM, 3 layers, 10 million parameters, a few days",
    ),
    "names": Text("baby names", ("names",), "8,000 names; 90% of its names are new"),
    "novel": Text("War and Peace", ("war-and-peace",), "LSTM; samples at steps 100 to 2,000"),
}  # fmt: skip
SAMPLES = (
    "The essay shows samples of an LSTM trained on War and Peace: at step 100 jumbles of letters "
    "with spaces; at 300 quotes and full stops; at 500 the shortest words; at 1,200 longer words "
    "and quotations; at 2,000 names and sentences."
)
TEMPERATURE = (
    "The essay: a temperature near zero gives the most likely text, which repeats itself; a higher "
    "one gives more variety and more mistakes."
)
CELL = (
    "The essay colours a text by single cells. It says that about 5% of them can be interpreted, "
    "and that one became a quote detection cell, which nobody had programmed. It gives no score. "
    "Here a unit is found by its AUC (1 is perfect, 0.5 is chance). To count as found, it has to "
    "beat three baselines clearly: the best unit for shifted quotes, a table of the last two "
    "characters, and networks with untrained weights."
)


def plan(asked: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """The runs, and a line for each text that is missing."""
    given = {}
    for each in asked.text:
        name, _, path = each.partition("=")
        if name not in TEXTS or not path:
            raise CharlmError(f"--text {each}: use NAME=FILE, NAME one of {', '.join(TEXTS)}")
        if not Path(path).exists():
            raise CharlmError(f"--text {each}: there is no such file")
        given[name] = path
    runs, missing = [], []
    for name, text in TEXTS.items():
        found = [it for it in text.sources if it not in KNOWN or have(it)]
        if source := given.get(name, found[0] if found else None):
            settings = {"eval.insight": False} | (LINES if name == "names" else {})
            runs.append(Run(name, source, None, settings, f"{text.title} in the essay"))
        else:
            fetch = f"charlm data fetch {text.sources[0]}, or " if text.sources else ""
            missing.append(f"{name}, {text.title}: get it with {fetch}--text {name}=FILE")
    return runs, missing


def results(runs: list[Run], folder: Path) -> tuple[str, list[Part]]:
    """The title and the sections of the page."""
    found, rows = {}, []
    for run in runs:
        path = folder / run.name
        summary, meta = state_of(path)
        key = [meta.corpus.sha256, summary.step]
        found[run.name] = kept(path / "reproduce.json", key, lambda path=path: measured(path))
        new = [n / of for t, _, n, of in found[run.name]["temperatures"] if t == 1 and of]
        result = "" if summary.best_loss is None else f"{bits(summary.best_loss):.3f}"
        rows.append(
            (
                TEXTS[run.name].title, Path(summary.text).name, f"{summary.chars:,}", summary.model,
                result, f"{new[0]:.0%} of its names are new" if new else "",
                TEXTS[run.name].published,
            )
        )  # fmt: skip
    heads = "text of the essay|text here|characters|network|bits||the essay"
    texts = table("Bits per character of the validation text, and the essay", heads, rows)
    series = [{"name": name, "points": it["losses"]} for name, it in found.items()]
    curves = part(
        "lines", caption="Validation loss", series=series, x="step", y="nats per character"
    )
    sections = [
        {"title": "Texts", "parts": [texts, curves]},
        {"title": "Samples during training", "parts": samples(found)},
        {"title": "Temperature", "parts": temperatures(found)},
        {"title": "The unit that tracks quotes", "parts": quotes(found)},
    ]
    return "The Unreasonable Effectiveness of Recurrent Neural Networks", sections


# --- measuring --------------------------------------------------------------------------------


def measured(folder: Path) -> dict[str, Any]:
    """What is shown of a run."""
    growth, model, texts = read_growth(folder), charlm.load(folder), []
    for temperature in TEMPERATURES:
        settings = {"seed": 1, "temperature": temperature}
        if model.config.data.documents == "lines":
            names = model.sample(num_samples=200, length=40, stop="\n", **settings)
            novelty = model.novelty(names)
            texts.append([temperature, "\n".join(names), novelty.new_items, novelty.items])
        else:
            texts.append([temperature, model.sample(length=400, **settings), None, None])
    return {
        "samples": [[each.step, each.text] for each in growth.samples],
        "losses": growth.losses["val"],
        "temperatures": texts,
        "quotes": quote_unit(charlm.inspect(folder, length=INSPECTED)),
    }


def quote_unit(survey: Survey) -> dict[str, Any] | None:
    """The unit that tracks quotes best, and a text coloured by it; None if the text has too few."""
    about = [each for each in survey.found if each.feature in QUOTES]
    if not about:
        return None
    best = max(about, key=lambda it: (it.discovery, it.units[0].score - it.baseline))
    unit = best.units[0]
    values = survey.activations.units[unit.kind][unit.layer, :, unit.index].astype(np.float64)
    # the score counts the second half of the text, so the quotation is from there
    holds = next(it for it in read_features(survey.text) if it.name == best.feature).values
    half = len(holds) // 2
    first = max(0, half + int(np.argmax(holds[half:])) - BEFORE)
    scale = float(np.quantile(np.abs(values), 0.98)) or 1.0
    levels = np.clip(np.round(7 * unit.sign * values / scale), -7, 7).astype(int)
    return {
        "feature": best.feature,
        "unit": f"{'cell' if unit.kind == 'c' else 'hidden'} {unit.index}, layer {unit.layer + 1}",
        "scores": [unit.score, best.chance, best.last_characters, best.untrained],
        "discovery": best.discovery,
        "chars": list(survey.text[first : first + SHOWN]),
        "levels": levels[first : first + SHOWN].tolist(),
    }


# --- the page ---------------------------------------------------------------------------------


def samples(found: dict[str, Any]) -> list[Part]:
    parts = [part("text", text=SAMPLES)]
    for name, it in found.items():
        parts.append(sample_row((f"{name}, step {step:,}", text) for step, text in it["samples"]))
    return parts


def temperatures(found: dict[str, Any]) -> list[Part]:
    name = "shakespeare" if "shakespeare" in found else next(iter(found))
    texts = found[name]["temperatures"]
    shown = sample_row((f"{name}, temperature {it[0]:g}", it[1]) for it in texts)
    return [part("text", text=TEMPERATURE), shown]


def sample_row(texts: Iterable[tuple[str, str]]) -> Part:
    """Texts side by side, each cut to 12 lines."""
    cut = [(caption, "\n".join(text.split("\n")[:12])) for caption, text in texts]
    return part("row", parts=[part("sample", caption=it[0], text=it[1]) for it in cut])


def quotes(found: dict[str, Any]) -> list[Part]:
    known = {name: it["quotes"] for name, it in found.items() if it["quotes"]}
    parts = [part("text", text=CELL)]
    if not known:
        return [*parts, part("text", text="None of these texts has enough quotes.")]
    rows = []
    for name, it in known.items():
        scores = (f"{score:.3f}" for score in it["scores"])
        rows.append((name, it["feature"], it["unit"], *scores, "yes" if it["discovery"] else "no"))
    heads = "text|feature|best unit|AUC|shifted|last two|untrained|found"
    parts.append(table("The best unit for quotes in each network", heads, rows))
    best = max(known, key=lambda it: (known[it]["discovery"], known[it]["scores"][0]))
    it = known[best]
    caption = f"{best}: the text, coloured by {it['unit']} (orange: as inside quotes)"
    return [*parts, part("shaded", caption=caption, chars=it["chars"], levels=it["levels"])]
