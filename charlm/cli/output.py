"""Prints lines, tables and messages. Whatever they contain, it is visible and each stays one line.

Sampled text is printed by `streaming.py`, and a run by `terminal.py`.
"""

from __future__ import annotations

import sys
from typing import Any

from charlm.cli.messages import as_options
from charlm.launch import name_of_process
from charlm.visible import visible


def print_line(text: str = "") -> None:
    """Print one line to standard output."""
    print(visible(text))


def print_lines(text: str) -> None:
    """Print a text of several lines, which ends with a newline, to standard output."""
    print(visible(text, keep="\n"), end="")


def print_table(rows: dict[str, Any]) -> None:
    """Print one line for each key and its value."""
    width = max(map(len, rows))
    for key, value in rows.items():
        print_line(f"{key:<{width}}  {value}")


def print_message(text: str, verb: str = "") -> None:
    """Print one line for the user to standard error."""
    sys.stdout.flush()  # keeps the order of the two streams
    print(message(text, verb=verb), file=sys.stderr, flush=True)


def print_note(text: str, verb: str = "") -> None:
    """Print a notice of the library to standard error."""
    print_message(f"note: {text}", verb)


def print_status(text: str) -> None:
    """Print a message, but only if standard error is a terminal."""
    if sys.stderr.isatty():
        print_message(text)


def message(*lines: str, verb: str = "") -> str:
    """A message of the library, as a line or a heading and lines, for the user of a verb."""
    shown = [visible(as_options(line, verb)) for line in lines]
    return "\n  ".join([f"charlm: {visible(name_of_process())}{shown[0]}", *shown[1:]])
