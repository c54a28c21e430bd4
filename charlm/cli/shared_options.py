"""Options that several verbs have."""

from __future__ import annotations

import argparse
from pathlib import Path

RUNS = Path("checkpoints")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the argument CHECKPOINT."""
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=Path,
        metavar="CHECKPOINT",
        help="name of a run, run folder (best.safetensors in it, otherwise last.safetensors), or "
        f"checkpoint file; default: the newest run in {RUNS}/",
    )


def add_set(parser: argparse.ArgumentParser) -> None:
    """Add --set."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, for example train.max_steps=500; may be repeated",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="device to use: auto, cpu, cuda, cuda:N or mps (default: %(default)s)",
    )


def add_unknown(parser: argparse.ArgumentParser) -> None:
    """Add --on-unknown."""
    parser.add_argument(
        "--on-unknown",
        choices=["error", "skip"],
        default="error",
        help="what to do with characters that are not in the vocabulary: stop with an error, or "
        "skip them (default: %(default)s)",
    )
