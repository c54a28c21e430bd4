"""The options of `charlm sample`: how to draw, how many texts, and what to print."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MAX_SEED = 2**64 - 1  # as train.seed
MAX_TEXTS, MAX_BATCH = 10**9, 10**6


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to its parser."""
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="type text and the model continues it, in turns; type /help for the commands",
    )
    _add_drawing(parser)
    _add_texts(parser)
    _add_output(parser)
    _add_computing(parser)


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--length", type=int, metavar="N", help="number of characters; 0: no limit")
    parser.add_argument(
        "--temperature",
        type=_numbers,
        metavar="T[,T...]",
        help="divides the logits; lower: more predictable text; higher: more varied text; 0: "
        "always the most likely character; several values: one after the other",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="draw only from the K most likely characters"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="draw only from the most likely characters that together have probability P",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="draw only from characters at least P times as likely as the most likely one",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="above 1: make characters that are among the last 64 less likely",
    )


def _add_texts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed, metavar="N", help="the same seed gives the same text")
    parser.add_argument(
        "--num-samples",
        type=_integer(1, MAX_TEXTS),
        metavar="N",
        help="number of texts (default: 1; 10 if the model was trained on one document a line)",
    )
    parser.add_argument(
        "--batch",
        type=_integer(1, MAX_BATCH),
        metavar="N",
        help="number of texts to sample side by side, for speed (default: 32); rounding rarely "
        "changes a text",
    )
    parser.add_argument("--stop", metavar="TEXT", help="end a text before this string")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--show-prob",
        action="store_true",
        help="on a terminal, colour each character by its probability",
    )
    parser.add_argument(
        "--format",
        choices=["text", "jsonl"],
        default="text",
        help="jsonl: one JSON object for each text (default: %(default)s)",
    )
    parser.add_argument(
        "--score", action="store_true", help="print the log-likelihood of each sampled text"
    )
    parser.add_argument(
        "--novelty",
        action="store_true",
        help="print what is copied from the training text, and which share of the n-grams is new",
    )


def _add_computing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--past-context",
        choices=["half", "slide"],
        default="half",
        help="when the context of a GPT is full: half: read its last half again and go on; slide: "
        "read the whole window again for every character, exact but slow (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "native", "numpy", "torch"],
        default="auto",
        help="native: C code, compiled once for this CPU; numpy: the same without a compiler; "
        "torch: PyTorch, for a GPU or bf16; auto: torch if --device names a GPU or --precision is "
        "bf16, otherwise native, or without a compiler numpy, or torch for 16 texts or more side "
        "by side (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16: bfloat16 with PyTorch, for a GPU; probabilities differ by up to one per cent "
        "(default: %(default)s)",
    )


def seed(text: str) -> int:
    """Read a seed, in the range of train.seed.

    Raises:
        ArgumentTypeError: it is not an integer in this range.
    """
    return _integer(0, MAX_SEED)(text)


def _integer(least: int, most: int) -> Callable[[str], int]:
    """Return a function that reads an integer within bounds."""

    def parse(text: str) -> int:
        if text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"{text!r:.80} should be an integer from {least} to {most:,}"
        )

    return parse


def _numbers(text: str) -> list[float]:
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"invalid float value: {part!r:.80}") from error
    return numbers
