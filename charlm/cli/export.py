"""`charlm export` and `charlm play`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from charlm.cli.output import print_note, print_table
from charlm.cli.shared_options import RUNS
from charlm.cli.streams import is_standard_output


def export(options: argparse.Namespace) -> int:
    """Write the page of a model, and print where it is and what rounding its weights costs."""
    from charlm.checkpoint.read import find_checkpoint

    path = find_checkpoint(options.checkpoint, RUNS)
    out = options.out or path.parent / "play.html"
    size, about = _write(path, out, options.weights, options.force)
    if not is_standard_output(out):
        _print(out, size, about)
    return 0


def play(options: argparse.Namespace) -> int:
    """Write the page of a model to a temporary folder, and open it in the browser."""
    import webbrowser

    from charlm.checkpoint.read import find_checkpoint

    path = find_checkpoint(options.checkpoint, RUNS)
    # the browser reads the page after this process has ended, so the folder stays
    out = Path(tempfile.mkdtemp(prefix="charlm-play-")) / "play.html"
    size, about = _write(path, out, options.weights, False)
    _print(out, size, about)
    if not webbrowser.open(out.as_uri()):
        print_note("no browser was found; open the link above in one")
    return 0


def _write(path: Path, out: Path, weights: str, force: bool) -> tuple[int, dict[str, Any]]:
    from charlm.checkpoint.read import open_checkpoint
    from charlm.page.file import check_free, write_page
    from charlm.playground.page import build_page

    check_free(out, "page", force)
    with open_checkpoint(path) as checkpoint:
        page, about = build_page(checkpoint, weights)
    return write_page(out, page, "page", force), about


def _print(out: Path, size: int, about: dict[str, Any]) -> None:
    losses = about["losses"]
    loss = about["reason"]
    if losses:
        loss = (
            f"{losses['rounded']:.4f} nats/char, of which rounding is {losses['cost']:+.5f} "
            f"({losses['chars']:,} characters of the validation text)"
        )
    print_table(
        {
            "page": f"{out} ({size / 1e6:.1f} MB, weights in {about['format']})",
            "open": out.absolute().as_uri(),
            "loss": loss,
        }
    )
