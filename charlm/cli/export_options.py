"""The options of `charlm export` and `charlm play`."""

from __future__ import annotations

from pathlib import Path

from charlm.cli import shared_options
from charlm.cli.parser import Parser, Verbs, add_verb


def add_export(verbs: Verbs) -> None:
    """Add the verb `export`."""
    parser = add_verb(
        verbs,
        "export",
        "write a model as a page that samples text in a browser",
        """\
examples:
  charlm export mybook
  charlm export mybook --weights fp16 --out mybook.html

The page is one file with the model in it. It needs no internet connection, and sends nothing. With
int8 weights it is about a third as large as the checkpoint; the page says what the rounding costs.
""",
    )
    shared_options.add_checkpoint(parser)
    parser.add_argument(
        "--format",
        choices=["html"],
        default="html",
        help="format of the file: html for a page (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file for the page (default: play.html next to the checkpoint)",
    )
    _add_weights(parser)
    parser.add_argument("--force", action="store_true", help="overwrite the file if it exists")


def add_play(verbs: Verbs) -> None:
    """Add the verb `play`."""
    parser = add_verb(
        verbs,
        "play",
        "open a page in the browser, in which a model writes",
        """\
examples:
  charlm play
  charlm play mybook

The page is that of `charlm export`, in a temporary folder.
""",
    )
    shared_options.add_checkpoint(parser)
    _add_weights(parser)


def _add_weights(parser: Parser) -> None:
    parser.add_argument(
        "--weights",
        choices=["int8", "fp16", "fp32"],
        default="int8",
        help="format of the weights: int8 (rounded, with one scale per row), fp16 or fp32 "
        "(default: %(default)s)",
    )
