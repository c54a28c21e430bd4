"""`charlm sample --interactive`: a person and a model write one text in turns."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

from charlm.cli.streaming import Stream, note, tell
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.api import Model
    from charlm.data.vocab import Ids
    from charlm.sampling.text import SampleSpec

HELP = """\
what you type is read, without its line end, and the model goes on; an empty line lets it go on
/temperature T  /top_k K  /top_p P  /min_p P  /repetition_penalty R   how it draws; off for none
/length N   characters a turn, 0 until Ctrl-C      /seed N   draw by this seed from here on
/reset      a new text      /help   this      //text   text that begins with a slash
Ctrl-C stops the model, Ctrl-D ends"""
SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "length")


def talk(model: Model, spec: SampleSpec, prompt: Ids, seed: int) -> int:
    """Read lines from standard input until its end, and write after each."""
    note("type something; /help tells what else there is, Ctrl-D ends")
    session = _Session(model, spec, seed)
    if len(prompt):
        session.out.write(model.vocab.decode(prompt))
        session.go_on(prompt)
    while (line := _next_line(session.out)) is not None:
        try:
            session.obey(line)
        except (CharlmError, ValueError) as error:
            tell(str(error).removeprefix("--"))
    if session.out.is_terminal:
        session.out.write("\n")
    return 0


def _next_line(out: Stream) -> str | None:
    """What was typed, or None at the end. Ctrl-C on an empty line is as an unknown command."""
    out.flush()
    while True:
        try:
            if sys.stdin.isatty() and sys.stderr.isatty():
                print("> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            print(file=sys.stderr)
            tell("Ctrl-D ends")
        else:
            return line.rstrip("\r\n") if line else None


class _Session:
    """The text so far, and how it goes on."""

    def __init__(self, model: Model, spec: SampleSpec, seed: int) -> None:
        self._model, self._spec, self._seed = model, spec, seed
        self._text = model.converse(seed)
        self.out = Stream()

    def obey(self, line: str) -> None:
        """A command, or text.

        Raises:
            CharlmError: the line cannot be obeyed.
        """
        if not line.startswith("/") or line.startswith("//"):
            text = line.removeprefix("/") if line.startswith("//") else line
            self.go_on(self._model.vocab.encode(text))
            return
        command, _, value = line[1:].partition(" ")
        value = value.strip()
        if command == "help":
            print(HELP, file=sys.stderr)
        elif command == "reset":
            self._text = self._model.converse(self._seed)
        elif command == "seed":
            if not value.isdecimal():
                raise CharlmError(f"seed: {value!r} is not a whole number of 0 or more")
            self._seed = int(value)
            self._text.draw_by(self._seed)
        elif command in SETTINGS:
            self._set(command, value)
        else:
            raise CharlmError(f"/{command}: no such command; /help tells which there are")

    def go_on(self, ids: Ids) -> None:
        """Read ids, and write until the end of the turn or Ctrl-C."""
        with _interruptible() as interrupted:
            for piece in self._text.write(ids, self._spec):
                if self._spec.scored:
                    self.out.write_coloured(piece.text, piece.nats)
                else:
                    self.out.write(piece.text)
                if interrupted:
                    break
        self.out.write("\n")
        self.out.flush()

    def _set(self, key: str, value: str) -> None:
        """Change a setting from here on."""
        from charlm.config.files import updated

        off = value == "off" and key in ("top_k", "top_p", "min_p")
        try:
            number = None if off else int(value) if key in ("top_k", "length") else float(value)
        except ValueError as error:
            raise CharlmError(f"{key}: {value!r} is not a number") from error
        if off:
            sample = self._spec.sample.model_copy(update={key: None})
        else:
            sample = updated(self._spec.sample, **{key: number})
        self._spec = replace(self._spec, sample=sample, length=sample.length or None)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Inside, Ctrl-C ends nothing by itself: the list is then no longer empty."""
    interrupted: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if interrupted:  # a second time: whatever it is that takes so long
            raise KeyboardInterrupt
        interrupted.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
