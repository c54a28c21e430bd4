#!/usr/bin/env python3
"""Train the networks of Karpathy's essay or paper again, on a small budget, and write a page.

    scripts/reproduce essay --minutes 30 [--text NAME=FILE ...]
    scripts/reproduce paper --minutes 600 [--data TEXT]

essay: A. Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks" (2015): an LSTM
       for each text; samples in training and at several temperatures; the unit that tracks quotes.
paper: A. Karpathy, J. Johnson and L. Fei-Fei, "Visualizing and Understanding Recurrent Networks"
       (arXiv:1506.02078): RNN, GRU and LSTM with 1 to 3 layers of 64 to 512 units on one text; the
       test loss, beside n-grams; how often the gates are saturated.

The runs share the minutes equally. Ctrl-C stops, and the same command continues: a finished run is
not trained again. The losses and figures take a few minutes more. The page is one file
in the folder of --out, and needs no internet connection.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

import reproduce_essay
import reproduce_paper
from comparing import machine
from reproduce_runs import Part, Run, part, state_of, table_of_runs, train

from charlm.config.suggest import minutes_problem
from charlm.errors import CharlmError
from charlm.outputs import write_output
from charlm.page.document import PARTS, build, read_parts
from charlm.visible import visible

EXPERIMENTS = {"essay": reproduce_essay, "paper": reproduce_paper}
STYLE = """
.wide { margin: .3rem 0 1.4rem; }
.dense tbody th { white-space: nowrap; max-width: none; }
.charts { margin: 1rem 0; gap: 1rem 2.2rem; }
.charts > figure:has(pre) { flex: 1 1 17rem; }
@media (max-width: 52rem) { td { white-space: nowrap; } }
"""
SHORT = (
    "A short budget does not reach the published losses: those networks were trained for much "
    "longer, and some on other texts."
)


class Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        raise CharlmError(f"{message}; see scripts/reproduce --help")


def main(arguments: Sequence[str] | None = None) -> int:
    logging.getLogger("charlm").setLevel(logging.ERROR)  # notices of single runs
    try:
        reproduce(parsed(arguments))
    except (CharlmError, OSError) as error:
        print(f"reproduce: {visible(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reproduce: stopped; the same command continues", file=sys.stderr)
        return 130
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = options.add_argument
    add("experiment", choices=sorted(EXPERIMENTS))
    add("--minutes", type=float, default=30, metavar="M", help="time of all runs together")
    add("--out", type=Path, metavar="FOLDER", help="default: checkpoints/reproduce/EXPERIMENT")
    add("--only", nargs="+", metavar="NAME", help="only these runs; patterns such as 'lstm-*'")
    add("--list", action="store_true", help="print what would run on which text; train nothing")
    add("--steps", type=int, metavar="N", help="steps of each run, instead of minutes")
    own = "essay: use this file as the text NAME"
    add("--text", action="append", default=[], metavar="NAME=FILE", help=own)
    known = "paper: the text (default: war-and-peace if it is here, otherwise tinyshakespeare)"
    add("--data", metavar="TEXT", help=known)
    add("--kinds", nargs="+", choices=reproduce_paper.KINDS, default=reproduce_paper.KINDS)
    add("--layers", nargs="+", type=int, default=[1, 2, 3], metavar="N")
    add("--sizes", nargs="+", type=int, default=[64, 128, 256, 512], metavar="N")
    asked = options.parse_args(arguments)
    if problem := minutes_problem(asked.minutes):
        raise CharlmError(f"--minutes {asked.minutes:g}: {problem}")
    if asked.steps is not None and asked.steps < 1:
        raise CharlmError(f"--steps {asked.steps}: give a number above 0")
    asked.out = asked.out or Path("checkpoints", "reproduce", asked.experiment)
    return asked


def reproduce(asked: argparse.Namespace) -> None:
    """Do what the user asks.

    Raises:
        CharlmError: an option is wrong, a text is missing, or a run cannot start.
    """
    experiment, folder = EXPERIMENTS[asked.experiment], asked.out / "runs"
    runs, missing = experiment.plan(asked)
    if asked.only:
        runs = [run for run in runs if any(fnmatchcase(run.name, each) for each in asked.only)]
    if not runs:
        raise CharlmError(f"--only {' '.join(asked.only)}: there is no such run; see --list")
    seconds = 60 * asked.minutes / len(runs)
    budget = f"{asked.steps} steps each" if asked.steps else f"{seconds:.0f} s each"
    if asked.list:
        for run in runs:
            state = found[0].state if (found := state_of(folder / run.name)) else "new"
            text = f"{run.data}, for {run.original}"
            print(visible(f"{run.name:14} {budget:14} {state:9} {text}"))
        print(*(visible(f"not here: {line}") for line in missing), sep="\n")
        return
    missing += train_all(runs, folder, seconds, asked.steps)
    done = [run for run in runs if state_of(folder / run.name)]
    if not done:
        raise CharlmError(missing[-1])
    title, sections = experiment.results(done, folder)
    last = [table_of_runs(it for run in done if (it := state_of(folder / run.name)))]
    last += [part("text", text=f"Not here: {line}.") for line in missing]
    computer = "{cpu}, {instructions}, {cores} cores".format(**machine())
    about = f"{len(done)} runs, {budget}; {computer}. {SHORT}"
    page = page_of(title, about, [*sections, {"title": "Runs", "parts": last}])
    path = asked.out / f"{asked.experiment}.html"
    write_output(path, page.encode(), "page", overwrite=True)
    print(f"page: {path}")


def train_all(runs: list[Run], folder: Path, seconds: float, steps: int | None) -> list[str]:
    """Train the runs. Returns a line for each that failed."""
    failed = []
    for run in runs:
        if problem := train(run, folder, seconds, steps):
            failed.append(f"{run.name}, which failed: {problem}")
        found = state_of(folder / run.name)
        if found and (loss := found[0].best_loss) is not None:
            print(f"{run.name}: step {found[0].step:,}, val {loss:.3f} nats/char", flush=True)
    return failed


def page_of(name: str, about: str, sections: list[Part]) -> str:
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return build(
        title=f"{name}: reproduction",
        style=read_parts(PARTS, "style.css") + STYLE,
        script=read_parts(PARTS, "data.js", "charts.js") + script,
        data={"about": {"name": name, "text": about, "unit": "char"}, "sections": sections},
        arrays={},
    )


if __name__ == "__main__":
    sys.exit(main())
