"""`charlm sample --interactive`: the user and the model continue one text in turns."""

from __future__ import annotations

import argparse
import difflib
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from charlm.cli import sample_options
from charlm.cli.output import print_message, print_status
from charlm.cli.signals import collected, each_interrupts
from charlm.cli.streaming import Stream
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.api import Model
    from charlm.data.vocab import Ids
    from charlm.sampling.text import SampleSpec

HELP = """\
type a line, and the model continues it; an empty line continues the text
/temperature T  /repetition_penalty R   change how characters are drawn
/top_k K  /top_p P  /min_p P            the same; "off" removes the limit
/length N   characters in a turn; 0: until Ctrl-C
/seed N     set the seed
/settings   print all settings; a setting without a value prints that one
/reset      start a new text
/help       print this help
/quit       end the program
//text      a line that starts with a slash
Ctrl-C stops the model, Ctrl-D ends the program"""
SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "length")
ENDS = ("/quit", "/exit")
COMMANDS = ("help", "quit", "settings", "seed", "reset", *SETTINGS)


def run_interactive(model: Model, spec: SampleSpec, prompt: Ids, seed: int) -> int:
    """Read lines from standard input until its end, and sample after each line."""
    print_status("type a line; /help lists the commands, Ctrl-D ends the program")
    session = _Session(model, spec, seed)
    if len(prompt):
        session.out.write(model.vocab.decode(prompt))
        session.continue_text(prompt)
    while (line := _next_line()) is not None and line.strip() not in ENDS:
        try:
            session.handle_line(line)
        except (CharlmError, ValueError) as error:
            print_message(str(error).removeprefix("--"))
    if session.out.is_terminal:
        session.out.write("\n")
    return 0


def _next_line() -> str | None:
    """The next line, or None at the end of the input. Ctrl-C does not end the program here."""
    sys.stdout.flush()
    with each_interrupts():
        while True:
            try:
                return _read_line()
            except EOFError:
                return None
            except KeyboardInterrupt:
                print(file=sys.stderr)
                print_message("Ctrl-D ends the program")


def _read_line() -> str:
    """Read a line. On a terminal, it can be edited, and the arrow keys bring back earlier ones.

    Raises:
        EOFError: the input has ended.
    """
    if sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(ImportError):  # Windows has none
            import readline  # from now on, `input` uses it

            readline.parse_and_bind("tab: self-insert")  # not the names of files
        return input("> ")
    if sys.stdin.isatty() and sys.stderr.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    if not (line := sys.stdin.readline()):
        raise EOFError
    return line.rstrip("\r\n")


class _Session:
    """The text so far and the current settings."""

    def __init__(self, model: Model, spec: SampleSpec, seed: int) -> None:
        self._model, self._spec, self._seed = model, spec, seed
        self._conversation = model.converse(seed)
        self.out = Stream(coloured=spec.scored)

    def handle_line(self, line: str) -> None:
        """Execute a command, or continue the text after this line.

        Raises:
            CharlmError: the command is not known, its value is wrong, or the line has a character
                that is not in the vocabulary.
        """
        if not line.startswith("/") or line.startswith("//"):
            self.continue_text(self._model.vocab.encode(line.removeprefix("/")))
            return
        name, _, value = line[1:].partition(" ")
        command, value = name.replace("-", "_"), value.strip()
        if command not in COMMANDS:
            close = difflib.get_close_matches(command, COMMANDS, 1, cutoff=0.5)
            hint = f", perhaps /{close[0]}" if close else ""
            raise CharlmError(f"/{name}: no such command{hint}; /help lists the commands")
        if command == "help":
            print(HELP, file=sys.stderr)
        elif command == "reset":
            self._conversation = self._model.converse(self._seed)
            print_message("a new text begins")
        elif command == "settings":
            print_message(", ".join(map(self._shown, (*SETTINGS, "seed"))))
        else:
            if value:
                self._set(command, value)
            print_message(self._shown(command))

    def continue_text(self, ids: Ids) -> None:
        """Read ids, then sample until the end of the turn or until Ctrl-C."""
        with collected("SIGINT") as interrupted:
            for chunk in self._conversation.sample_turn(ids, self._spec):
                self.out.write(chunk.text, chunk.nats)
                if interrupted:
                    break
        self.out.write("\n")
        sys.stdout.flush()

    def _set(self, key: str, value: str) -> None:
        """Change a setting for the next turns."""
        from charlm.config.files import updated

        if key == "seed":
            try:
                self._seed = sample_options.seed(value)
            except argparse.ArgumentTypeError as error:
                raise CharlmError(f"seed: {error}") from error
            self._conversation.set_seed(self._seed)
            return
        if value == "off" and key in ("top_k", "top_p", "min_p"):
            sample = self._spec.sample.model_copy(update={key: None})
        else:
            try:
                number = int(value) if key in ("top_k", "length") else float(value)
            except ValueError as error:
                raise CharlmError(f"{key}: {value!r:.80} is not a number") from error
            sample = updated(self._spec.sample, **{key: number})
        self._spec = replace(self._spec, sample=sample, length=sample.length or None)

    def _shown(self, key: str) -> str:
        """`temperature 0.8`, or `top_k off`."""
        value = self._seed if key == "seed" else getattr(self._spec.sample, key)
        return f"{key} {'off' if value is None else value}"
