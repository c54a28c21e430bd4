"""`charlm inspect`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from charlm.cli.output import print_line, print_note, print_table
from charlm.cli.shared_options import RUNS
from charlm.cli.streams import is_standard_output
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.data.corpus import Split
    from charlm.insight.attention import HeadScore
    from charlm.insight.search import Found
    from charlm.insight.survey import Survey

MOST_SHOWN = 8  # discoveries in the terminal
UNITS = {"h": "hidden h", "c": "cell c", "mlp": "MLP unit", "x": "residual x"}  # as in data.js


def inspect(options: argparse.Namespace) -> int:
    """Write a page that shows what a network learned, and print the main results."""
    from charlm.api.inspecting import MOST_CHARS, survey_text
    from charlm.checkpoint.read import find_checkpoint, open_checkpoint
    from charlm.insight.report import is_report, write_report
    from charlm.outputs import check_free

    if not 2 <= options.length <= MOST_CHARS:
        raise CharlmError(f"--length: {options.length} should be from 2 to {MOST_CHARS}")
    path, text = find_checkpoint(options.checkpoint, RUNS), options.text
    split: Split = "all" if text else options.split or "val"
    with open_checkpoint(path) as checkpoint:
        out = options.out or (None if options.json else path.parent / "report.html")
        own = out is not None and options.out is None and is_report(out)
        overwrite = options.force or own  # its own report, at its own place
        if out is not None:
            check_free(out, "report", overwrite)
        skip = options.on_unknown == "skip"
        found, about = survey_text(
            checkpoint, text, split, options.length, skip, options.device, print_note
        )
        vocab = [*map(ord, checkpoint.meta.vocab)]
    if out is not None:
        size = write_report(out, found, about | {"vocab": vocab}, overwrite)
    if options.json:
        print_line(json.dumps(about | found.numbers()))
    elif out is not None and not is_standard_output(out):
        _print(found, about, f"{out} ({size / 1e6:.1f} MB)", out.absolute().as_uri())
    return 0


def _print(found: Survey, about: dict[str, Any], report: str, link: str) -> None:
    unknown = about["unknown_chars"]
    print_table(
        {
            "report": report,
            "open": link,
            "text": f"{about['source']}, {len(found.text):,} characters"
            + f", {unknown:,} unknown characters skipped" * bool(unknown),
            "loss": f"{found.bits_per_char:.4f} bits/char",
            "found": f"a unit tracks {len(found.discoveries)} of {len(found.found)} features",
        }
    )
    lines = [(each.feature, _describe_found(each)) for each in found.discoveries[:MOST_SHOWN]]
    lines += [(head.target, _describe_head(head)) for head in _best(found.heads)]
    width = max((len(name) for name, _ in lines), default=0)
    for name, description in lines:
        print_line(f"  {name:<{width}}  {description}")
    if found.discoveries:
        print_line(
            f"{'words':<8}AUC 1 is perfect, 0.5 is chance, and the report explains all words"
        )


def _describe_found(found: Found) -> str:
    """`cell c 413 of layer 1: Spearman 0.858 (chance 0.257, ...)`."""
    unit = found.units[0]
    return (
        f"{UNITS[unit.kind]} {unit.index} of layer {unit.layer + 1}: {found.measure} "
        f"{unit.score:.3f} (chance {found.chance:.3f}, last two characters "
        f"{found.last_characters:.3f}, untrained {found.untrained:.3f})"
    )


def _best(heads: list[HeadScore]) -> list[HeadScore]:
    """The best head for each target, if it is a discovery.

    Args:
        heads: the best head of each target comes first.
    """
    best = {head.target: head for head in reversed(heads)}
    return [head for head in best.values() if head.discovery]


def _describe_head(head: HeadScore) -> str:
    return (
        f"head {head.head + 1} of layer {head.layer + 1}: {head.score:.0%} of "
        f"its attention (even spread {head.chance:.1%}, untrained {head.untrained:.1%})"
    )
