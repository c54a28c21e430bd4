#!/usr/bin/env python3
"""Fit the constants of charlm/config/suggest.py, which choose settings for a text and a time.

    scripts/fit_defaults RESULTS.jsonl [--train TEXT ...] [--kind KIND ...] [--most-chars N]
                         [--tune WIDTH ...]

With --train it trains models of several widths on pieces of each text, with several numbers of
characters and dropout rates, and appends a line for each run to RESULTS.jsonl. Runs that are there
already are not repeated, so it can be stopped and continued. The last 20,000 characters of a text
are held out. The loss of a run is the loss on them after its last step, in nats per character.

With --tune, each run of these widths is repeated with half and with twice the batch (and the
same number of characters) and each of the two learning rates.

It then prints, for each kind and piece of text, the losses and the best dropout, and the mean
change of the loss by --tune. For several values of `chars_per_weight`, it prints the regret: the
loss of the width that the rule chooses for a time, minus the loss of the best width for that time.
Times are computed from `suggest.LAPTOP`, or from --speed with three numbers, so the machine does
not matter.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

import charlm
from charlm.config.suggest import (
    KINDS,
    LAPTOP,
    Choice,
    Speed,
    batch_size,
    chars_in,
    dropout,
    suggest,
)
from charlm.errors import CharlmError
from charlm.observer import Observer, Record

HELD_OUT = 20_000  # characters
PIECES = (30_000, 100_000, 1_000_000, 5_000_000)  # characters to train on
READ = (300_000, 1_000_000, 3_000_000, 10_000_000)  # characters that a run reads
WIDTHS = {"gpt": (64, 128, 192, 256)}
_WIDTHS = (64, 128, 256, 512, 1024)
RATES = (0.0, 0.3, 0.5)
TUNED = ("batch_size", "lr", "adamw_lr")
RATIOS = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20)  # of chars_per_weight


@dataclass(frozen=True)
class Spec:
    """A run: a model, what it is trained on, for how long, and how."""

    text: str
    piece: int
    kind: str
    width: int
    read: int
    dropout: float
    batch_size: int
    lr: float
    adamw_lr: float

    @property
    def is_by_rule(self) -> bool:
        return self == by_rule(
            self.text, self.piece, self.kind, self.width, self.read, self.dropout
        )

    def variants(self) -> dict[tuple[str, float], Spec]:
        """The runs of --tune, by the name of what differs and the factor."""
        return {
            (key, factor): replace(self, **{key: type(value)(factor * value)})
            for key, factor in product(TUNED, (0.5, 2))
            if (value := getattr(self, key)) * factor >= 1 or key != "batch_size"
        }

    def choice(self) -> Choice:
        return Choice(
            kind=self.kind,
            width=self.width,
            batch_size=self.batch_size,
            dropout=self.dropout,
            chars=self.read,
            epochs=self.read / self.piece,
            enough=False,
        )


def by_rule(text: str, piece: int, kind: str, width: int, read: int, dropout: float) -> Spec:
    """A run with the batch and the learning rates of the rule."""
    of = KINDS[kind]
    batch = batch_size(read, piece, of.seq_len)
    return Spec(text, piece, kind, width, read, dropout, batch, of.lr, of.adamw_lr)


class LastLoss(Observer):
    """Keeps the validation loss of the last evaluation."""

    loss = math.nan

    def record(self, record: Record) -> None:
        if record.split == "val":
            self.loss = record.loss


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    options.add_argument("--train", type=Path, nargs="+", default=[], metavar="TEXT")
    options.add_argument("--kind", nargs="+", choices=sorted(KINDS), default=["lstm"])
    options.add_argument("--most-chars", type=int, default=3_000_000, metavar="N")
    options.add_argument("--tune", type=int, nargs="+", default=[], metavar="WIDTH")
    options.add_argument("--speed", type=float, nargs=3, metavar="S", help="as in suggest.Speed")
    asked = options.parse_args()
    lines = asked.results.read_text().splitlines() if asked.results.exists() else []
    results = {Spec(**(found := json.loads(line))["spec"]): found["loss"] for line in lines}
    for text in asked.train:
        for spec in specs(text, asked.kind, asked.most_chars, asked.tune):
            if spec not in results:
                results[spec] = train(text, spec)
                with asked.results.open("a") as file:
                    print(json.dumps({"spec": asdict(spec), "loss": results[spec]}), file=file)
                print(f"{spec}: {results[spec]:.4f}", flush=True)
    report(results, Speed(*asked.speed) if asked.speed else LAPTOP)


# --- runs -------------------------------------------------------------------------------------


def specs(
    text: Path, kinds: list[str], most_chars: int, tuned: Collection[int] = ()
) -> Iterator[Spec]:
    """The runs for a text. Without repetition no dropout is tried, and much repetition needs it.

    Args:
        tuned: the widths of the runs that are also done with other batches and learning rates.
    """
    length = len(text.read_text(encoding="utf-8")) - HELD_OUT
    fits = [piece for piece in PIECES if piece <= length]
    for kind, piece, read in product(kinds, fits or [length], READ):
        for width, rate in product(WIDTHS.get(kind, _WIDTHS), RATES):
            epochs = read / piece
            if read <= most_chars and (rate == 0 if epochs < 2 else rate > 0 or epochs < 10):
                spec = by_rule(text.stem, piece, kind, width, read, rate)
                yield spec
                yield from spec.variants().values() if width in tuned else ()


def train(text: Path, spec: Spec) -> float:
    """The loss of a run on the held-out characters, in nats per character; NaN if it fails."""
    content = text.read_text(encoding="utf-8")
    keep = LastLoss()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        path.write_text(content[: spec.piece] + content[-HELD_OUT:], encoding="utf-8")
        config = suggest((str(path),), spec.choice())
        config["data"]["val_fraction"] = HELD_OUT / (HELD_OUT + spec.piece)
        config["train"]["optimizer"] |= {"lr": spec.lr, "adamw_lr": spec.adamw_lr}
        config["eval"] = {"every": None, "max_chars": None, "sample_every": None}
        try:
            charlm.train(config=config, out=folder, observers=[keep])
        except CharlmError as error:
            print(f"{spec}: {error}")
    return keep.loss


# --- the report -------------------------------------------------------------------------------


Losses = dict[int, dict[int, float]]  # by the width, then by the characters that are read


def report(results: dict[Spec, float], speed: Speed) -> None:
    groups: dict[tuple[str, str, int], dict[Spec, float]] = defaultdict(dict)
    for spec, loss in results.items():
        if spec.is_by_rule:
            groups[spec.kind, spec.text, spec.piece][spec] = loss
    regrets: dict[str, list[list[float]]] = defaultdict(list)
    for (kind, text, piece), runs in sorted(groups.items()):
        print(f"\n{kind}, {piece:,} characters of {text}: loss (dropout, that of the rule)")
        best = best_of(runs)
        for width in sorted(best):
            cells = []
            for read, (loss, rate) in sorted(best[width].items()):
                ruled = dropout(read / piece, KINDS[kind].weights(width) / piece)
                cells.append(f"{read / 1e6:g}M {loss:.4f} ({rate:g}, {ruled:g})")
            print(f"  {width:5}  {'  '.join(cells)}")
        losses = {width: {n: loss for n, (loss, _) in by.items()} for width, by in best.items()}
        regrets[kind] += regret(kind, piece, losses, speed)
    report_tuned(results)
    for kind, rows in regrets.items():
        if not rows:
            print(f"\n{kind}: too few runs to compare widths at the same time")
            continue
        means = np.mean(rows, axis=0)
        cells = "  ".join(f"{r:g}: {it:.4f}" for r, it in zip(RATIOS, means, strict=True))
        print(f"\n{kind}: mean nats above the best width, by chars_per_weight\n  {cells}")


def report_tuned(results: dict[Spec, float]) -> None:
    """Print the mean change of the loss by another batch or learning rate."""
    changes: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for spec, loss in results.items():
        for (key, factor), variant in spec.variants().items() if spec.is_by_rule else ():
            if variant in results:
                changes[spec.kind, key, factor].append(results[variant] - loss)
    print()
    for (kind, key, factor), nats in sorted(changes.items()):
        print(f"{kind}, {key} times {factor:g}: {np.mean(nats):+.4f} nats ({len(nats)} runs)")


def best_of(runs: dict[Spec, float]) -> dict[int, dict[int, tuple[float, float]]]:
    """The lowest loss and its dropout, by width and characters read."""
    best: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)
    for spec, loss in sorted(runs.items(), key=lambda it: -it[1]):
        best[spec.width][spec.read] = loss, spec.dropout
    return best


def regret(kind: str, piece: int, losses: Losses, speed: Speed) -> list[list[float]]:
    """For each ratio, the loss of the width that it chooses, minus that of the best width.

    Returns:
        A row for each time that the losses cover, with a number of nats for each of RATIOS.
    """
    of, rows = KINDS[kind], []
    for seconds in np.geomspace(2, 2000, 25):
        at: dict[int, tuple[float, float]] = {}  # width: characters read in this time, loss
        for width, by in losses.items():
            known = np.array(sorted(by))
            read = chars_in(of, piece, width, seconds, speed)
            if len(known) > 1 and known[0] <= read <= known[-1]:
                values = [by[n] for n in known]
                at[width] = read, float(np.interp(math.log(read), np.log(known), values))
        if len(at) > 1:
            lowest = min(loss for _, loss in at.values())
            rows.append([at[_chosen(kind, at, ratio)][1] - lowest for ratio in RATIOS])
    return rows


def _chosen(kind: str, at: dict[int, tuple[float, float]], ratio: float) -> int:
    """The largest width that reads enough characters for its weights, else the smallest one."""
    enough = [width for width, (n, _) in at.items() if n >= ratio * KINDS[kind].weights(width)]
    return max(enough, default=min(at))


if __name__ == "__main__":
    main()
