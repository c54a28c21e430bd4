"""The options of `charlm sample`: how to draw, how many texts, and what to print."""

from __future__ import annotations

import argparse
from collections.abc import Callable

MAX_TEXTS, MAX_BATCH = 10**9, 10**6


def add(parser: argparse.ArgumentParser) -> None:
    """Add them to its parser."""
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="you and the model write in turns; the command /help lists all commands",
    )
    _add_drawing(parser)
    _add_texts(parser)
    _add_output(parser)
    _add_computing(parser)


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-l", "--length", type=int, metavar="N", help="number of characters to sample; 0: no limit"
    )
    parser.add_argument(
        "-t",
        "--temperature",
        type=_numbers,
        metavar="T[,T...]",
        help="divisor of the logits; a lower value gives more predictable text, a higher value "
        "more varied text; 0: always the most likely character; with several values, charlm "
        "samples with each of them",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="sample only from the K most likely characters"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="sample only from the most likely characters whose probabilities together reach P",
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="sample only from characters whose probability is at least P times the highest one",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="factor; above 1, the last 64 characters become less likely to occur again",
    )


def _add_texts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=seed,
        metavar="N",
        help="seed of the random numbers (default: random); the same seed gives the same text",
    )
    parser.add_argument(
        "-n",
        "--num-samples",
        type=_integer(1, MAX_TEXTS),
        metavar="N",
        help="number of texts (default: 1; 10 if data.documents is lines in the model's config)",
    )
    parser.add_argument(
        "--batch",
        type=_integer(1, MAX_BATCH),
        metavar="N",
        help="maximum number of texts to sample at the same time (default: 32); a larger batch is "
        "faster; it changes the rounding, which rarely changes a text",
    )
    parser.add_argument(
        "--stop", metavar="TEXT", help="end a text before the first TEXT, which is not printed"
    )


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
        help="jsonl: one JSON object per text, each in one line (default: %(default)s)",
    )
    parser.add_argument(
        "--no-separator",
        dest="separator",
        action="store_false",
        help="do not print a line such as `--- sample 2 of 3` before each of several texts",
    )
    parser.add_argument(
        "--score", action="store_true", help="also print the log-likelihood of each sampled text"
    )
    parser.add_argument(
        "--novelty",
        action="store_true",
        help="also print the longest passage that is copied from the training text, and the share "
        "of n-grams that are new",
    )


def _add_computing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--past-context",
        choices=["half", "slide"],
        default="half",
        help="what to do when the context of a GPT is full. half: keep its last half and continue; "
        "slide: give every character the full context, which is slow, because the whole context is "
        "read again for each character (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "native", "numpy", "torch"],
        default="auto",
        help="native: C code, compiled once for this CPU; numpy: NumPy, needs no C compiler; "
        "torch: PyTorch, needed for a GPU and for bf16; auto: torch if --device names a GPU or "
        "--precision is bf16, otherwise native; without a C compiler, auto is torch for 16 or more "
        "texts at the same time, otherwise numpy (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16: bfloat16 with PyTorch, for a GPU; the probabilities differ by up to 1%% "
        "(default: %(default)s)",
    )


def seed(text: str) -> int:
    """Read a seed, in the range of train.seed.

    Raises:
        ArgumentTypeError: it is not an integer in this range.
    """
    from charlm.config.base import MAX_SEED  # slow to import

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
