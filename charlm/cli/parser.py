"""The argument parser of charlm and of its verbs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from charlm.visible import visible

Verbs = Any  # what add_subparsers returns; argparse keeps that type private


class Parser(argparse.ArgumentParser):
    """Prints an error in one line.

    Attributes:
        late_epilog: returns the last part of the help. It is called only if the help is printed.
    """

    late_epilog: Callable[[], str] | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {visible(message)}; see {self.prog} --help\n")

    def format_help(self) -> str:
        return super().format_help() + (self.late_epilog() if self.late_epilog else "")


def add_verb(verbs: Verbs, name: str, about: str, examples: str) -> Parser:
    """Add the parser of a verb. In the result of parse_args, `verb` is its name.

    Args:
        about: the description, in lower case and without a full stop.
        examples: the text after the options.
    """
    parser: Parser = verbs.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=examples
    )
    parser.set_defaults(verb=parser.prog.removeprefix("charlm "))
    return parser
