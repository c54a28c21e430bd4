"""The essay: an LSTM for each of its texts, and what the essay says about them.

All that is said about the essay is from A. Karpathy, "The Unreasonable Effectiveness of Recurrent
Neural Networks", karpathy.github.io/2015/05/21/rnn-effectiveness, May 21, 2015.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from reproduce_runs import Run, kept, number, state_of

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


@dataclass(frozen=True)
class Corpus:
    """A text of the essay.

    Attributes:
        sources: names of texts for charlm, the essay's own first.
        published: what the essay says about text, network and result.
    """

    title: str
    sources: tuple[str, ...]
    published: str
    set: dict[str, Any] = field(default_factory=dict)


CORPORA = {
    "graham": Corpus("Paul Graham's essays", (), "1 MB; LSTM 2x512, dropout 0.5"),
    "shakespeare": Corpus(
        "Shakespeare", ("shakespeare", "tinyshakespeare"), "4.4 MB; RNN 3x512, a few hours"
    ),
    "wikipedia": Corpus("Wikipedia", ("enwik8",), "96 MB; LSTM 3x700, 7 epochs: 1.57 bits"),
    "latex": Corpus("algebraic geometry in LaTeX", ("stacks",), "16 MB; LSTM of several layers"),
    "linux": Corpus(
        "source code", ("linux", "builtin:python"),
        "474 MB of Linux in C; LSTM of 3 layers, about 10 million parameters, a few days",
    ),
    "names": Corpus("first names", ("names",), "8,000 names; 90% of its names are new", LINES),
    "novel": Corpus("War and Peace", ("war-and-peace",), "LSTM; samples at steps 100 to 2,000"),
}  # fmt: skip


def plan(asked: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """The runs, and a line for each text that is missing."""
    given = {}
    for each in asked.text:
        name, _, path = each.partition("=")
        if name not in CORPORA or not path:
            raise CharlmError(f"--text {each}: use NAME=FILE, NAME one of {', '.join(CORPORA)}")
        if not Path(path).exists():
            raise CharlmError(f"--text {each}: there is no such file")
        given[name] = path
    runs, missing = [], []
    for name, corpus in CORPORA.items():
        found = [it for it in corpus.sources if it not in KNOWN or have(it)]
        if source := given.get(name, found[0] if found else None):
            runs.append(Run(name, source, None, {"eval.insight": False, **corpus.set}))
        else:
            fetch = f"charlm data fetch {corpus.sources[0]}, or " if corpus.sources else ""
            missing.append(f"{name}, {corpus.title}: get it with {fetch}--text {name}=FILE")
    return runs, missing


def results(runs: list[Run], folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The title and the sections of the page."""
    found = {}
    for run in runs:
        state = state_of(folder / run.name)
        assert state is not None
        path, key = folder / run.name / "reproduce.json", [state[1].corpus.sha256, state[0].step]
        found[run.name] = kept(path, key, lambda path=path.parent: measured(path))
    sections = [
        {"title": "Texts", "parts": [texts_table(runs, folder, found), curves(found)]},
        {"title": "Samples during training", "parts": samples(found)},
        {"title": "Temperature", "parts": temperatures(found)},
        {"title": "The unit that tracks quotes", "parts": quotes(found)},
    ]
    return "The Unreasonable Effectiveness of Recurrent Neural Networks", sections


# --- measuring --------------------------------------------------------------------------------


def measured(folder: Path) -> dict[str, Any]:
    """What is shown of a run."""
    growth, model = read_growth(folder), charlm.load(folder)
    is_list = model.config.data.documents == "lines"
    texts = []
    for temperature in TEMPERATURES:
        if is_list:
            lines = model.sample(
                num_samples=200, length=40, stop="\n", seed=1, temperature=temperature
            )
            new, of = model.novelty(lines).new_items, model.novelty(lines).items
            texts.append([temperature, "\n".join(lines[:12]), new, of])
        else:
            text = model.sample(length=400, seed=1, temperature=temperature)
            texts.append([temperature, text, None, None])
    survey = charlm.inspect(folder, length=INSPECTED)
    return {
        "samples": [[each.step, each.text] for each in growth.samples],
        "losses": growth.losses["val"],
        "temperatures": texts,
        "quotes": quote_unit(survey),
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
    here = slice(first, first + SHOWN)
    scale = float(np.quantile(np.abs(values), 0.98)) or 1.0
    levels = np.clip(np.round(7 * unit.sign * values[here] / scale), -7, 7).astype(int)
    return {
        "feature": best.feature,
        "unit": f"{'cell' if unit.kind == 'c' else 'hidden'} {unit.index}, layer {unit.layer + 1}",
        "scores": [unit.score, best.chance, best.last_characters, best.untrained],
        "discovery": best.discovery,
        "chars": list(survey.text[here]),
        "levels": levels.tolist(),
    }


# --- the page ---------------------------------------------------------------------------------


def texts_table(runs: list[Run], folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for run in runs:
        state = state_of(folder / run.name)
        assert state is not None
        summary, loss = state[0], state[0].best_loss
        result = "–" if loss is None else f"{bits(loss):.3f}"
        new = next(
            ([n, of] for t, _, n, of in found[run.name]["temperatures"] if t == 1 and of), None
        )
        rows.append(
            [
                CORPORA[run.name].title, Path(summary.text).name, f"{summary.chars:,}",
                summary.model, result, f"{new[0] / new[1]:.0%} of its names are new" if new else "",
                CORPORA[run.name].published,
            ]
        )  # fmt: skip
    heads = ["text", "here", number("characters"), "network", number("bits"), "", "the essay"]
    caption = "Bits per character on the validation text, and what the essay reports"
    return {"kind": "table", "caption": caption, "heads": heads, "rows": rows}


def curves(found: dict[str, Any]) -> dict[str, Any]:
    series = [{"name": name, "points": it["losses"]} for name, it in found.items() if it["losses"]]
    caption = "Validation loss during training"
    return {
        "kind": "lines",
        "caption": caption,
        "series": series,
        "x": "step",
        "y": "nats per character",
    }


def samples(found: dict[str, Any]) -> list[dict[str, Any]]:
    parts = [
        text_part(
            "The essay shows samples of an LSTM trained on War and Peace: at step 100 words and "
            "spaces; at 300 quotes and full stops; at 500 the shortest words; at 1,200 longer words "
            "and quotations; at 2,000 names and sentences."
        )
    ]
    for name, it in found.items():
        for step, text in it["samples"]:
            parts.append({"kind": "sample", "caption": f"{name}, step {step:,}", "text": text})
    return parts


def temperatures(found: dict[str, Any]) -> list[dict[str, Any]]:
    name = "shakespeare" if "shakespeare" in found else next(iter(found))
    parts = [
        text_part(
            "The essay: a temperature near zero gives the most likely text, which repeats itself; a "
            "higher one gives more variety and more mistakes."
        )
    ]
    for temperature, text, _, _ in found[name]["temperatures"]:
        caption = f"{name}, temperature {temperature:g}"
        parts.append({"kind": "sample", "caption": caption, "text": text})
    return parts


def quotes(found: dict[str, Any]) -> list[dict[str, Any]]:
    known = {name: it["quotes"] for name, it in found.items() if it["quotes"]}
    parts = [
        text_part(
            "The essay colours a text by single cells. It says that about 5% of them can be "
            "interpreted, and that one became a quote detection cell, without being told to. It "
            "gives no score. Here a unit is found by its AUC (1 is perfect, 0.5 is chance), and has "
            "to beat three baselines clearly to count: the best unit for shifted quotes, a table of "
            "the last two characters, and networks with untrained weights."
        )
    ]
    if not known:
        return [*parts, text_part("None of these texts has enough quotes.")]
    rows = [
        [name, it["feature"], it["unit"], *(f"{x:.3f}" for x in it["scores"]),
         "yes" if it["discovery"] else "no"]
        for name, it in known.items()
    ]  # fmt: skip
    heads = ["text", "feature", "best unit"]
    heads += [number(head) for head in ("AUC", "shifted", "last two", "untrained")]
    caption = "The best unit for quotes in each network"
    parts.append({"kind": "table", "caption": caption, "heads": [*heads, "found"], "rows": rows})
    best = max(known, key=lambda it: (known[it]["discovery"], known[it]["scores"][0]))
    shown = known[best]
    caption = f"{best}: the text, coloured by {shown['unit']} (orange: as inside quotes)"
    part = {
        "kind": "shaded",
        "caption": caption,
        "chars": shown["chars"],
        "levels": shown["levels"],
    }
    return [*parts, part]


def text_part(text: str) -> dict[str, Any]:
    return {"kind": "text", "text": text}
