"""The argument parser of charlm and of its verbs."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any, NoReturn

from charlm.cli.meant import is_known, option_hint, verb_hint
from charlm.launch import give_way, is_first_here, name_of_process
from charlm.visible import visible

Verbs = Any  # what add_subparsers returns; argparse keeps that type private


class Parser(argparse.ArgumentParser):
    """Prints an error in one line, which says what may have been meant.

    Attributes:
        flags: the options that set a setting, by the dotted name of the setting.
        siblings: the parsers of the verbs beside this one, and its own, by the name of the verb.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )
        self.flags: Mapping[str, str] = {}
        self.siblings: Mapping[str, Parser] = {}
        self._given: list[str] = []

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse arguments. A verb itself refuses those that it does not know."""
        self._given = list(sys.argv[1:] if args is None else args)
        # otherwise `-length 9` would be `-l ength 9`
        own = takewhile(lambda it: it.startswith("-") or not self._verbs(), self._given)
        if long := [word for word in own if self._has_one_dash_only(word)]:
            self._refuse(long)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print a message and where the help is; exit with status 2."""
        line = message + self._hint_about_dash(message)
        give_way()
        line = visible(name_of_process() + line)
        self.exit(2, f"{self.prog}: {line}; see {self.prog} --help\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if is_first_here() or file is sys.stderr:  # one process prints the help
            super()._print_message(message, file)

    def subparser(self, words: Sequence[str]) -> Parser:
        """The parser of a verb such as `data stats`. An unknown word is an error."""
        parser = self
        for word in words:
            verbs = parser._verbs()
            if verbs is None:
                parser.error(f"{word}: {parser.prog} has no actions")
            parser._check_value(verbs, word)
            parser = verbs.choices[word]
        return parser

    def _verbs(self) -> Any:
        """The action that calls the parsers of verbs; None if there is none."""
        actions = (it for it in self._actions if isinstance(it, argparse._SubParsersAction))
        return next(actions, None)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action is self._verbs() and value not in (action.choices or ()):
            noun = str(action.metavar).lower()
            self.error(
                f"{value!r:.80}: no such {noun}{verb_hint(value, list(action.choices or ()))}"
            )
        super()._check_value(action, value)

    def _has_one_dash_only(self, word: str) -> bool:
        """Whether a word is a long option with one dash, as char-rnn has them."""
        name = re.fullmatch(r"-([a-z][a-z_-]+)(?:=.*)?", word, re.DOTALL)
        return name is not None and is_known("--" + name[1], self._option_string_actions)

    def _refuse(self, unknown: list[str]) -> NoReturn:
        """Refuse arguments that are not known."""
        options = [word for word in unknown if word.startswith("-")]
        if not options:
            several = any(action.nargs == "*" for action in self._get_positional_actions())
            hint = "; give all texts in one place, not before and after an option" * several
            self.error(f"unexpected argument: {shlex.join(unknown)}{hint}")
        option, equals, value = options[0].partition("=")
        if not equals:
            value = self._value_after(options[0])
            value = "" if value.startswith("-") else value
        others = {name: it._option_string_actions for name, it in self.siblings.items()}
        hint = option_hint(option, value, self._option_string_actions, self.flags, others)
        self.error(f"no such option: {option}{hint}")

    def _value_after(self, *options: str) -> str:
        """The argument after the first of these options; empty if there is none."""
        pairs = pairwise([*self._given, ""])
        return next((after for word, after in pairs if word in options), "")

    def _hint_about_dash(self, message: str) -> str:
        """The hint for an option whose value begins with a dash, as an option does."""
        found = re.match(r"argument (\S+): expected (?:one|at least one) argument", message)
        if not found:
            return ""
        names = found[1].split("/")
        value = self._value_after(*names)
        if not value.startswith("-") or value.partition("=")[0] in self._option_string_actions:
            return ""
        example = f"{names[-1]}={shlex.quote(value)}"
        return f"; a value that begins with a dash needs an equals sign: {example}"


def add_verb(
    verbs: Verbs, name: str, about: str, examples: str, usage: str | None = None
) -> Parser:
    """Add the parser of a verb. In the result of parse_args, `verb` is its name.

    Args:
        about: the description, in lower case and without a full stop.
        examples: the text after the options.
        usage: the arguments, for a verb with many options; by default, all of them.
    """
    parser: Parser = verbs.add_parser(
        name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=examples
    )
    parser.siblings = verbs.choices
    if usage:
        parser.usage = f"{parser.prog} {usage}"
    parser.set_defaults(verb=parser.prog.removeprefix("charlm "))
    return parser
