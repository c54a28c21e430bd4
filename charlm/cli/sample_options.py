"""The options of `charlm sample`: how to draw, how many texts, what is told of them."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """Give them to its parser."""
    parser.add_argument(
        "--interactive", action="store_true", help="type, watch it go on, type again; /help there"
    )
    _add_drawing(parser)
    _add_texts(parser)
    _add_output(parser)
    _add_computing(parser)


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--length", type=int, metavar="N", help="characters to write; 0: until stopped"
    )
    parser.add_argument(
        "--temperature",
        type=_numbers,
        metavar="T[,T...]",
        help="1: as the model has it; lower: safer; higher: bolder; 0: always the likeliest; "
        "several: one after the other",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest only")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw from the likeliest that make up P only"
    )
    parser.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="draw from those P times as likely as the likeliest",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="R",
        help="above 1: make what stood in the last 64 characters less likely",
    )


def _add_texts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_seed, metavar="N", help="the same seed, the same text")
    parser.add_argument(
        "--num-samples",
        type=int,
        metavar="N",
        help="how many texts (1; 10 of a model of lists, which writes items)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="so many texts side by side (32); nearly always the same",
    )
    parser.add_argument("--stop", metavar="TEXT", help="end before this text is written")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--show-prob", action="store_true", help="on a terminal, colour by probability"
    )
    parser.add_argument(
        "--format", choices=["text", "jsonl"], default="text", help="jsonl: an object a text"
    )
    parser.add_argument(
        "--score", action="store_true", help="tell the log-likelihood of what was written"
    )
    parser.add_argument(
        "--novelty",
        action="store_true",
        help="tell what was copied from the training text, and what share of n-grams is new",
    )


def _add_computing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--past-context",
        choices=["half", "slide"],
        default="half",
        help="where a gpt's context is full: read its last half afresh, or for every character all "
        "of it, which is exact and slow (%(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "native", "numpy", "torch"],
        default="auto",
        help="native: C for this CPU, compiled once; numpy: the same without a compiler; torch: on "
        "a GPU, or in bf16; auto: torch where --device names a GPU or for bf16, else native, or "
        "where that is not to be had numpy, or torch for 16 texts or more at once (%(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16: by torch, with shorter numbers, for a GPU; probabilities are off by up to a "
        "per cent (%(default)s)",
    )


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _numbers(text: str) -> list[float]:
    numbers = []
    for part in text.split(","):
        try:
            numbers.append(float(part))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"invalid float value: {part!r}") from error
    return numbers
