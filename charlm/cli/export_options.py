"""The options of `charlm export` and `charlm play`."""

from __future__ import annotations

from pathlib import Path

from charlm.cli import shared_options
from charlm.cli.parser import Verbs, add_verb
from charlm.units import WEIGHT_BYTES


def add_export(verbs: Verbs) -> None:
    """Add the verb `export`."""
    parser = add_verb(
        verbs,
        "export",
        "write a model as a page for a browser, or for other programs",
        """\
examples:
  charlm export mybook
  charlm export mybook --weights fp16 --out mybook.html
  charlm export mybook --format onnx
  charlm export mygpt --format hf --out mygpt-hf

html  a page with the model in it. It needs no internet connection, and sends nothing. With int8
      weights it is about a third as large as the checkpoint; the page says what the rounding costs.
onnx  a file for onnxruntime and other programs: any model, from ids and a state to logits and the
      state after them. docs/sample_onnx.py samples with it.
hf    a folder for transformers, with a tokenizer: a GPT with the options of GPT-2 (positions
      learned, layernorm, gelu) or Llama (rope, rmsnorm, swiglu), without qk_norm.
docs/sharing.md describes these files.
""",
    )
    shared_options.add_checkpoint(parser)
    parser.add_argument(
        "--format",
        choices=["html", "onnx", "hf"],
        default="html",
        help="html for a page, onnx for a file, hf for a folder (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="file, or folder for --format hf, to write (default: play.html, model.onnx or hf next "
        "to the checkpoint)",
    )
    parser.add_argument(
        "--weights",
        choices=[*WEIGHT_BYTES],
        help="format of the weights: int8 (rounded, with one scale per row; html only), fp16 or "
        "fp32 (default: int8 for html, fp32 for the others)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="overwrite the file if it exists; in a folder that exists, replace the files of the "
        "same names",
    )


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
    parser.add_argument(
        "--weights",
        choices=[*WEIGHT_BYTES],
        default="int8",
        help="format of the weights: int8 (rounded, with one scale per row), fp16 or fp32 "
        "(default: %(default)s)",
    )
