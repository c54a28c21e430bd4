"""`charlm train`."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from charlm.cli.output import print_line, print_note
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.config import Config, DataConfig
    from charlm.data.corpus import Texts

LARGE_MB = 300  # reading and encoding this takes a second or two


def train(options: argparse.Namespace) -> int:
    """Train a run to its end, or until a signal arrives."""
    from charlm.cli import describe, terminal
    from charlm.insight.watch import Watch
    from charlm.sampling.preview import Preview
    from charlm.training import session

    config, opened = _config(options)
    _note_large_text(config.data)
    if options.resume:
        ready = session.resume(config, options.out / config.name, options.device)
    else:
        ready = session.start(config, options.out, options.device, options.init_from, opened)
    run = ready.run
    view, began_at = terminal.View(run), run.progress.step
    for line in describe.describe_run(ready):
        print_line(line)
    for notice in ready.notices:
        view.notice(notice)
    preview = Preview(run.config, run.corpus.vocab)
    watch = [Watch(run.folder, run.corpus.split("val"), ready.model)] * run.config.eval.insight
    with _signals() as received, _quiet_threads():
        trainer = ready.trainer([view, *watch], lambda: bool(received) or view.closed, preview)
        outcome = trainer.train()
    for line in describe.describe_end(run, outcome, began_at, options.out, options.device):
        print_line(line)
    return 128 + received[0] if received and outcome == "stopped" else 0


def _config(options: argparse.Namespace) -> tuple[Config, Texts | None]:
    """The settings: from a file, from the run to resume, or chosen for the text.

    Returns:
        The settings, and the text if it was read to choose them.
    """
    from charlm.checkpoint.format import LAST
    from charlm.checkpoint.read import find_checkpoint, read_meta
    from charlm.config.files import load_config, parse_config

    data = {"path": options.data} if options.data else {}
    if options.config:
        return load_config(options.config, options.set, options.name, data), None
    if options.resume:
        folder = options.out / options.name if options.name else None
        last = find_checkpoint(folder, options.out).parent / LAST
        settings = read_meta(last).config.model_dump(mode="json")
        settings["data"] |= data
        return parse_config(settings, options.set, last.parent.name), None
    if not options.data:
        raise CharlmError("train: give --data TEXT, --config FILE, or --resume to continue a run")
    return _suggested(options)


def _suggested(options: argparse.Namespace) -> tuple[Config, Texts]:
    """Settings chosen for a text, and the text."""
    from charlm.config.files import parse_config
    from charlm.config.suggest import suggest, yield_to
    from charlm.data.corpus import open_corpus, open_texts
    from charlm.training.session import refuse_to_overwrite

    def settings(chars: int) -> Config:
        suggested = suggest(tuple(options.data), chars)
        yield_to(suggested, options.set)
        return parse_config(suggested, options.set, options.name)

    config = settings(0)  # everything but the size of the model is correct
    if options.init_from is None:
        refuse_to_overwrite(options.out / config.name)
    _note_large_text(config.data)
    opened = open_texts(config.data)
    return settings(len(open_corpus(config.data, opened=opened).split("train"))), opened


def _note_large_text(data: DataConfig) -> None:
    """Print a note if the text must be read and encoded first and that takes a while."""
    from charlm.data.cache import bytes_to_read
    from charlm.data.sources import find_sources

    paths = [path for path in (data.path, data.val_path, data.test_path) if path]
    size = sum(bytes_to_read(find_sources(path, data), data) for path in paths) / 1e6
    if size > LARGE_MB:
        print_note(f"reading and encoding {size:,.0f} MB of text")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect signals that ask to stop. A second signal ends the process at once.

    It is not turned into a KeyboardInterrupt. That could leave a lock of another thread locked,
    for example of TensorBoard's writer, and the process would wait for that thread for ever.
    A second SIGHUP is ignored: when a terminal is closed, the system and the shell both send one.
    """
    received: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGHUP: the terminal was closed
    usual = {
        number: handler
        for name in names
        if (number := getattr(signal, name, None)) is not None
        and (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def receive(number: int, _frame: object) -> None:
        received.append(number)
        for each in usual:
            is_hangup = each == getattr(signal, "SIGHUP", None)
            signal.signal(each, signal.SIG_IGN if is_hangup else signal.SIG_DFL)

    for number in usual:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Print no OSError of another thread.

    If the disk is full, TensorBoard's writer thread raises again in the main thread, which reports
    the error.
    """
    usual = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        if not isinstance(what.exc_value, OSError):
            usual(what)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual
