"""The paper: RNN, GRU and LSTM of several sizes on one text.

A. Karpathy, J. Johnson and L. Fei-Fei, "Visualizing and Understanding Recurrent Networks",
arXiv:1506.02078 (2015).
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from reproduce_runs import Part, Run, kept, part, state_of, table

import charlm
from charlm.data.corpus import Corpus, open_corpus
from charlm.data.library import have
from charlm.data.yardsticks import ngram_bits
from charlm.errors import CharlmError
from charlm.evaluation.evaluate import evaluate
from charlm.insight.gates import LEFT, RIGHT, gate_use
from charlm.insight.record import record
from charlm.units import bits

KINDS = ("lstm", "rnn", "gru")
ORDER = 8  # of the n-gram models
TEST_CHARS, GATE_CHARS = 50_000, 5_000  # of the test text
ROWS = 32  # pieces of it that are read side by side
LOSSES = (
    "Nats per character on the start of the test text ({test:,} characters of {source}). Table 1 "
    "of the paper has those of its networks on War and Peace and on the source code of Linux. It "
    "finds LSTM and GRU much better than RNN, and two layers better than one. Its numbers are not "
    "repeated here: they could not be compared with the paper when this script was written."
)
NGRAMS = "Interpolated Witten-Bell models, as of charlm data stats. The paper goes up to n = 20."
GATES = (
    f"Each dot is a unit: the share of characters at which its gate is above {RIGHT} (right) and "
    f"below {LEFT} (left), in the network of most layers with the lowest test loss. The paper "
    "(section 4.2) finds units whose forget gate is nearly always right-saturated, so that they "
    "remember for long, and that the first layer uses its gates in another way."
)
Losses = dict[tuple[str, int, int], float]  # by kind, layers and units


def plan(asked: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """The runs, and a line if the paper's text is missing."""
    if any(n < 1 for n in [*asked.layers, *asked.sizes]):
        raise CharlmError("--layers and --sizes: give numbers above 0")
    text = asked.data or ("war-and-peace" if have("war-and-peace") else "tinyshakespeare")
    grid = product(asked.kinds, asked.layers, asked.sizes)
    runs = [
        Run(f"{kind}-{n}x{size}", text, settings(kind, n, size), {}, "War and Peace in the paper")
        for kind, n, size in grid
    ]
    missing = "war-and-peace, the paper's text: get it with charlm data fetch war-and-peace"
    return runs, [] if text == "war-and-peace" else [missing]


def settings(kind: str, n_layer: int, size: int) -> dict[str, Any]:
    """The settings of a run: those that charlm chooses, with the model of the grid."""
    return {
        "data": {"val_fraction": 0.1, "test_fraction": 0.1},
        "model": {"kind": kind, "n_layer": n_layer, "hidden_size": size},
        "train": {
            "batch_size": 32,
            "seq_len": 64,
            "optimizer": {"kind": "muon", "lr": 0.02, "weight_decay": 0.1, "adamw_lr": 4e-3},
            "schedule": {"kind": "wsd", "warmup_steps": 10},
        },
        "eval": {"sample_every": None, "insight": False},
    }


def results(runs: list[Run], folder: Path) -> tuple[str, list[Part]]:
    """The title and the sections of the page."""
    losses: Losses = {}
    for run in runs:
        path = folder / run.name
        summary, meta = state_of(path)
        key, model = [meta.corpus.sha256, summary.step], meta.config.model
        loss = kept(path / "reproduce.json", key, lambda path=path: test_loss(path))
        losses[model.kind, model.n_layer, model.hidden_size] = loss
    corpus = corpus_of(path)
    ngrams = kept(folder / "ngrams.json", corpus.sha256, lambda: ngram_losses(corpus))
    test = len(corpus.split("test").head(TEST_CHARS))
    note = part("text", text=LOSSES.format(test=test, source=Path(corpus.source).name))
    sections = [
        {"title": "Test cross-entropy", "parts": [note, *losses_parts(losses)]},
        {"title": "N-grams", "parts": [ngrams_table(losses, ngrams), part("text", text=NGRAMS)]},
        {"title": "Saturation of the gates", "parts": gates_parts(losses, folder)},
    ]
    return "Visualizing and Understanding Recurrent Networks", sections


# --- measuring --------------------------------------------------------------------------------


def corpus_of(run: Path) -> Corpus:
    return open_corpus(charlm.load(run).config.data)


def test_loss(run: Path) -> float:
    """Nats per character on the start of the test text."""
    model, ids = charlm.load(run), corpus_of(run).split("test").head(TEST_CHARS)
    return evaluate(model.torch_model(), ids, model.config.eval, seed=0, rows=ROWS).nats_per_char


def ngram_losses(corpus: Corpus) -> list[float]:
    """Nats per character of n-gram models with 0, 1, ... characters before."""
    test = corpus.split("test").head(TEST_CHARS)[:]
    return [it / bits(1.0) for it in ngram_bits(corpus.split("train")[:], test, ORDER)]


def saturation(run: Path) -> list[dict[str, Any]]:
    """For each gate the shares of characters at which its units are saturated, (L, D) each."""
    ids = corpus_of(run).split("test").head(GATE_CHARS)[:]
    gates = gate_use(record(charlm.load(run).torch_model(), ids).gates)
    return [{"name": it.name, "left": it.left.tolist(), "right": it.right.tolist()} for it in gates]


# --- the page ---------------------------------------------------------------------------------


def losses_parts(losses: Losses) -> list[Part]:
    sizes, layers = (sorted({it[i] for it in losses}) for i in (2, 1))
    kinds = [kind for kind in KINDS if any(it[0] == kind for it in losses)]
    heads = "|".join(["units", *(f"{kind} {n}" for kind in kinds for n in layers)])

    rows = []
    for size in sizes:
        own = [losses.get((kind, n, size)) for kind in kinds for n in layers]
        rows.append([size, *("–" if it is None else f"{it:.3f}" for it in own)])
    parts = [table("Test loss, by kind and layers", heads, rows)]
    for n in layers:
        series = [
            {
                "name": kind,
                "points": [[s, losses[key]] for s in sizes if (key := (kind, n, s)) in losses],
            }
            for kind in kinds
        ]
        caption = f"Test loss by units, layers: {n}"
        parts.append(part("lines", caption=caption, series=series, x="units", y="nats"))
    return parts


def ngrams_table(losses: Losses, ngrams: list[float]) -> Part:
    (kind, n, size), best = min(losses.items(), key=lambda it: it[1])
    rows = [(f"{k + 1}-gram", f"{x:.3f}", f"{best - x:+.3f}") for k, x in enumerate(ngrams)]
    caption = f"N-grams of the training text, and the best network, {kind}-{n}x{size}: {best:.3f}"
    return table(caption, "model|nats|network minus n-gram", rows)


def gates_parts(losses: Losses, folder: Path) -> list[Part]:
    parts, rows = [part("text", text=GATES)], []
    for kind in ("lstm", "gru"):
        own = [(-n, loss, size) for (k, n, size), loss in losses.items() if k == kind]
        if not own:
            continue
        n, loss, size = min(own)
        run = folder / f"{kind}-{-n}x{size}"
        gates = kept(run / "gates.json", loss, lambda run=run: saturation(run))
        charts = []
        for gate in gates:
            layers = list(enumerate(zip(gate["left"], gate["right"], strict=True), 1))
            sets = [
                {"name": f"layer {i}", "points": list(zip(right, left, strict=True))}
                for i, (left, right) in layers
            ]
            caption = f"{run.name}: {gate['name']} gate"
            charts.append(part("scatter", caption=caption, sets=sets))
            for i, shares in layers:
                means = (f"{sum(each) / len(each):.0%}" for each in shares)
                rows.append((run.name, gate["name"], i, *means))
        parts.append(part("row", parts=charts))
    heads = "network|gate|layer|left-saturated|right-saturated"
    return [*parts, table("Mean share of saturated characters", heads, rows)]
