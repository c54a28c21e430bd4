"""The paper: RNN, GRU and LSTM of several sizes on one text.

A. Karpathy, J. Johnson and L. Fei-Fei, "Visualizing and Understanding Recurrent Networks",
arXiv:1506.02078 (2015).
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from reproduce_runs import Run, kept, number, state_of

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
TEST_CHARS, GATE_CHARS, ROWS = (
    50_000,
    5_000,
    32,
)  # of the test text; texts that are read side by side
# Table 1, War and Peace: by kind and units, for 1, 2 and 3 layers. Entered from memory, without
# access to the paper: the page says so. There is no RNN of 512.
PUBLISHED = {
    ("lstm", 64): (1.449, 1.442, 1.540), ("lstm", 128): (1.277, 1.227, 1.279),
    ("lstm", 256): (1.189, 1.137, 1.141), ("lstm", 512): (1.161, 1.092, 1.082),
    ("rnn", 64): (1.446, 1.401, 1.396), ("rnn", 128): (1.417, 1.286, 1.277),
    ("rnn", 256): (1.342, 1.256, 1.239),
    ("gru", 64): (1.398, 1.373, 1.472), ("gru", 128): (1.230, 1.226, 1.253),
    ("gru", 256): (1.198, 1.164, 1.138), ("gru", 512): (1.170, 1.201, 1.077),
}  # fmt: skip
Key = tuple[str, int, int]  # kind, layers, units


def plan(asked: argparse.Namespace) -> tuple[list[Run], list[str]]:
    """The runs, and a line if the paper's text is missing."""
    if any(n < 1 for n in [*asked.layers, *asked.sizes]):
        raise CharlmError("--layers and --sizes: give numbers above 0")
    text = asked.data or ("war-and-peace" if have("war-and-peace") else "tinyshakespeare")
    grid = product(asked.kinds, asked.layers, asked.sizes)
    runs = [Run(f"{kind}-{n}x{size}", text, settings(kind, n, size), {}) for kind, n, size in grid]
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


def results(runs: list[Run], folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The title and the sections of the page."""
    losses: dict[Key, float] = {}
    for run in runs:
        state = state_of(folder / run.name)
        assert state is not None
        key = [state[1].corpus.sha256, state[0].step]
        path, model = folder / run.name, state[1].config.model
        losses[model.kind, model.n_layer, model.hidden_size] = kept(
            path / "reproduce.json", key, lambda path=path: test_loss(path)
        )
    corpus, sha256 = corpus_of(folder / runs[0].name), state[1].corpus.sha256
    ngrams = kept(folder / "ngrams.json", sha256, lambda: ngram_losses(corpus))
    test = len(corpus.split("test").head(TEST_CHARS))
    sections = [
        {"title": "Test cross-entropy", "parts": losses_part(losses, corpus.source, test)},
        {"title": "N-grams", "parts": ngrams_part(losses, ngrams)},
        {"title": "Saturation of the gates", "parts": gates_part(losses, folder)},
    ]
    return "Visualizing and Understanding Recurrent Networks", sections


# --- measuring --------------------------------------------------------------------------------


def corpus_of(run: Path) -> Corpus:
    return open_corpus(charlm.load(run).config.data)


def test_loss(run: Path) -> float:
    """Nats per character on the start of the test text."""
    model = charlm.load(run)
    ids = corpus_of(run).split("test").head(TEST_CHARS)
    return evaluate(model.torch_model(), ids, model.config.eval, seed=0, rows=ROWS).nats_per_char


def ngram_losses(corpus: Corpus) -> list[float]:
    """Nats per character of n-gram models with 0, 1, ... characters before."""
    test = corpus.split("test").head(TEST_CHARS)[:]
    return [it / bits(1.0) for it in ngram_bits(corpus.split("train")[:], test, ORDER)]


def saturation(run: Path) -> list[dict[str, Any]]:
    """For each gate its shares of saturated characters, (L, D), left and right."""
    ids = corpus_of(run).split("test").head(GATE_CHARS)[:]
    gates = gate_use(record(charlm.load(run).torch_model(), ids).gates)
    return [{"name": it.name, "left": it.left.tolist(), "right": it.right.tolist()} for it in gates]


# --- the page ---------------------------------------------------------------------------------


def losses_part(losses: dict[Key, float], source: str, test: int) -> list[dict[str, Any]]:
    layers = sorted({n for _, n, _ in losses})
    note = (
        f"Nats per character on the first {test:,} characters of the test text of {source}. The "
        "published numbers are those of Table 1 for War and Peace; another text has other losses. "
        "They were entered without access to the paper: check them before you cite them. In the "
        "paper, the networks of a row have about as many parameters; here, as many units."
    )
    kinds = [kind for kind in KINDS if any(it[0] == kind for it in losses)]
    heads = ["units", *(number(f"{kind} {n}") for kind in kinds for n in layers)]
    here, paper = [], []
    for size in sorted({size for _, _, size in losses}):
        cells = [losses.get((kind, n, size)) for kind in kinds for n in layers]
        here.append([f"{size}", *("–" if it is None else f"{it:.3f}" for it in cells)])
        known = [published(kind, n, size) for kind in kinds for n in layers]
        paper.append([f"{size}", *known])
    parts = [
        {"kind": "text", "text": note},
        {
            "kind": "table",
            "caption": "Measured here, by kind and layers",
            "heads": heads,
            "rows": here,
        },
        {"kind": "table", "caption": "Published", "heads": heads, "rows": paper},
    ]
    for n in layers:
        series = [
            {
                "name": kind,
                "points": sorted([s, x] for (k, m, s), x in losses.items() if (k, m) == (kind, n)),
            }
            for kind in kinds
        ]
        shown = [it for it in series if it["points"]]
        caption = f"Test loss by units, {n} layer{'s' * (n > 1)}"
        parts.append(
            {"kind": "lines", "caption": caption, "series": shown, "x": "units", "y": "nats"}
        )
    return parts


def published(kind: str, n_layer: int, size: int) -> str:
    known = PUBLISHED.get((kind, size), ())
    return f"{known[n_layer - 1]:.3f}" if n_layer <= len(known) else "–"


def ngrams_part(losses: dict[Key, float], ngrams: list[float]) -> list[dict[str, Any]]:
    (kind, n, size), best = min(losses.items(), key=lambda it: it[1])
    rows = [
        [f"{k + 1}-gram", f"{loss:.3f}", f"{best - loss:+.3f}"] for k, loss in enumerate(ngrams)
    ]
    heads = ["model", number("nats"), number("network minus n-gram")]
    caption = f"N-grams of the training text, and the best network, {kind} {n}x{size}: {best:.3f}"
    note = (
        "Interpolated Witten-Bell models (charlm data stats). The paper has Kneser-Ney smoothing, "
        "and n up to 20."
    )
    table = {"kind": "table", "caption": caption, "heads": heads, "rows": rows}
    return [table, {"kind": "text", "text": note}]


def gates_part(losses: dict[Key, float], folder: Path) -> list[dict[str, Any]]:
    note = (
        f"Each dot is a unit: the share of characters at which its gate is above {RIGHT} (right) "
        f"and below {LEFT} (left), in the network of most layers with the lowest test loss. The paper "
        "(section 4.2) finds units whose forget gate is nearly always right-saturated, so that "
        "they remember for long, and that the first layer uses its gates in another way."
    )
    parts: list[dict[str, Any]] = [{"kind": "text", "text": note}]
    rows = []
    for kind in ("lstm", "gru"):
        own = [(-n, loss, size) for (k, n, size), loss in losses.items() if k == kind]
        if not own:
            continue
        n, _, size = min(own)
        run = folder / f"{kind}-{-n}x{size}"
        gates = kept(run / "gates.json", losses[kind, -n, size], lambda run=run: saturation(run))
        charts = [scatter(f"{run.name}: {gate['name']} gate", gate) for gate in gates]
        parts.append({"kind": "row", "parts": charts})
        rows += [
            [run.name, gate["name"], f"{i + 1}", f"{mean(left):.0%}", f"{mean(right):.0%}"]
            for gate in gates
            for i, (left, right) in enumerate(zip(gate["left"], gate["right"], strict=True))
        ]
    heads = ["network", "gate", number("layer"), number("left"), number("right")]
    caption = "Mean share of saturated characters"
    return [*parts, {"kind": "table", "caption": caption, "heads": heads, "rows": rows}]


def scatter(caption: str, gate: dict[str, Any]) -> dict[str, Any]:
    sets = [
        {"name": f"layer {i + 1}", "points": [list(pair) for pair in zip(right, left, strict=True)]}
        for i, (left, right) in enumerate(zip(gate["left"], gate["right"], strict=True))
    ]
    x, y = "right-saturated", "left-saturated"
    return {"kind": "scatter", "caption": caption, "sets": sets, "x": x, "y": y}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
