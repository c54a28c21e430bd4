"""`charlm train`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.config import Config, DataConfig
    from charlm.data.corpus import Texts

LARGE_MB = 300  # a second or two


def train(options: argparse.Namespace) -> int:
    """Train a run to its end, or until a signal."""
    from charlm.cli import describe, terminal
    from charlm.insight.watch import Watch
    from charlm.sampling.preview import Preview
    from charlm.training import session

    config, opened = _config(options)
    _announce(config.data)
    if options.resume:
        ready = session.resume(config, options.out / config.name, options.device)
    else:
        ready = session.start(config, options.out, options.device, options.init_from, opened)
    view = terminal.View(ready.run)
    for line in describe.describe_run(ready):
        print(line)
    for notice in ready.notices:
        view.notice(notice)
    began_at = ready.run.progress.step
    run = ready.run
    preview = Preview(run.config, run.corpus.vocab)
    watch = [Watch(run.folder, run.corpus.split("val"), ready.model)] * run.config.eval.insight
    with _signals() as received, _one_voice():
        trainer = ready.trainer([view, *watch], lambda: bool(received) or view.closed, preview)
        outcome = trainer.train()
    for line in describe.describe_end(ready.run, outcome, began_at, options.out, options.device):
        print(line)
    return 128 + received[0] if received and outcome == "stopped" else 0


def _config(options: argparse.Namespace) -> tuple[Config, Texts | None]:
    """The settings: of a file, of the run to go on with, or what suits the text; and the text
    where it was read for that."""
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
        raise CharlmError(
            "train: say what on: --data TEXT, or --config FILE, or --resume to go on with a run"
        )
    return _suggested(options)


def _suggested(options: argparse.Namespace) -> tuple[Config, Texts]:
    """Settings for a text that comes without any."""
    from charlm.config.files import parse_config
    from charlm.config.suggest import suggest, yield_to
    from charlm.data.corpus import open_corpus, open_texts
    from charlm.training.session import refuse_to_overwrite

    def settings(chars: int) -> Config:
        suggested = suggest(tuple(options.data), chars)
        yield_to(suggested, options.set)
        return parse_config(suggested, options.set, options.name)

    config = settings(0)  # all but the size is right
    if options.init_from is None:
        refuse_to_overwrite(options.out / config.name)
    _announce(config.data)
    opened = open_texts(config.data)
    return settings(len(open_corpus(config.data, opened=opened).split("train"))), opened


def _announce(data: DataConfig) -> None:
    """Say what takes a while, and why it does so once only."""
    from charlm.data.cache import bytes_to_read
    from charlm.data.sources import find_sources

    paths = [path for path in (data.path, data.val_path, data.test_path) if path]
    size = sum(bytes_to_read(find_sources(path, data), data) for path in paths) / 1e6
    if size > LARGE_MB:
        print(f"charlm: note: {size:,.0f} MB of text are read and encoded", file=sys.stderr)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect what asks to stop inside; a second signal has its usual effect, at once."""
    received: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last when a terminal is closed
    usual = {
        number: handler
        for name in names
        if (number := getattr(signal, name, None)) is not None
        and (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }

    def receive(number: int, _frame: object) -> None:
        received.append(number)
        for each, handler in usual.items():
            signal.signal(each, handler)

    for number in usual:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


@contextmanager
def _one_voice() -> Iterator[None]:
    """A full disk is told of once: TensorBoard's thread raises in ours, and need not print too."""
    usual = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        if not isinstance(what.exc_value, OSError):
            usual(what)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual
