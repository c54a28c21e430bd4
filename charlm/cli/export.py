"""`charlm export` and `charlm play`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from charlm.cli.output import print_note, print_table
from charlm.cli.shared_options import RUNS
from charlm.cli.streams import is_standard_output
from charlm.errors import CharlmError

# what is written next to the checkpoint, by format
NAMES = {"html": "play.html", "onnx": "model.onnx", "hf": "hf"}


def export(options: argparse.Namespace) -> int:
    """Write a model as a page or for other programs, and print where it is."""
    from charlm.checkpoint.read import find_checkpoint

    path = find_checkpoint(options.checkpoint, RUNS)
    out = options.out or path.parent / NAMES[options.format]
    if options.format == "html":
        size, about = _write(path, out, options.weights or "int8", options.force)
        if not is_standard_output(out):
            _print(out, size, about)
        return 0
    weights = options.weights or "fp32"
    if weights == "int8":
        raise CharlmError("--weights int8: it needs --format html; use --weights fp32 or fp16")
    write = _write_onnx if options.format == "onnx" else _write_hf
    size, rows = write(path, out, weights, options.force)
    if not is_standard_output(out):
        print_table({"model": f"{out} ({size / 1e6:.1f} MB, weights in {weights})"} | rows)
    return 0


def _write_onnx(path: Path, out: Path, weights: str, force: bool) -> tuple[int, dict[str, str]]:
    """Write an ONNX file; returns its size, and what to print of it."""
    from charlm.checkpoint.read import open_checkpoint
    from charlm.exporting.onnx_file import build_onnx
    from charlm.outputs import check_free, write_output

    check_free(out, "model", force)
    with open_checkpoint(path) as checkpoint:
        content, difference = build_onnx(checkpoint, weights)
    found = f"the logits of onnxruntime differ from charlm's by {difference:.1g} at most"
    return write_output(out, content, "model", force), {"check": found}


def _write_hf(path: Path, out: Path, weights: str, force: bool) -> tuple[int, dict[str, str]]:
    """Write a folder for transformers; returns its size, and what to print of it."""
    from charlm.checkpoint.read import open_checkpoint
    from charlm.exporting.hf_folder import build_folder
    from charlm.outputs import check_folder_free, write_folder

    check_folder_free(out, "model", force)
    with open_checkpoint(path) as checkpoint:
        files = build_folder(checkpoint, weights)
    use = f"AutoModelForCausalLM.from_pretrained({str(out)!r})"
    return write_folder(out, files, "model", force), {"open": use}


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
    from charlm.outputs import check_free, write_output
    from charlm.playground.page import build_page

    check_free(out, "page", force)
    with open_checkpoint(path) as checkpoint:
        page, about = build_page(checkpoint, weights)
    return write_output(out, page.encode(), "page", force), about


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
