"""`charlm train`."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.cli import train_options
from charlm.cli.output import print_line, print_note
from charlm.cli.signals import collected
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from charlm.checkpoint.read import Checkpoint
    from charlm.config import Config, DataConfig
    from charlm.training.session import Session

LARGE_MB = 300  # reading and encoding this takes a second or two


def train(options: argparse.Namespace) -> int:
    """Train a run to its end, or until a signal arrives."""
    from charlm.cli import describe, terminal
    from charlm.data.findings import findings
    from charlm.insight.watch import Watch
    from charlm.sampling.preview import preview

    with _session(options) as ready:
        run = ready.run
        view, began_at = terminal.View(run), run.progress.step
        view.begin(describe.describe_run(ready))
        about_text = [] if run.resumed else findings(run.corpus, run.config.data)
        for notice in (*ready.notices, *about_text):
            view.notice(notice)
        sampler = functools.partial(preview, run.config, run.corpus.vocab)
        watch = [Watch(run.folder, run.corpus.split("val"), ready.model)] * run.config.eval.insight
        # SIGHUP: the terminal was closed
        with collected("SIGINT", "SIGTERM", "SIGHUP") as received:
            trainer = ready.trainer([view, *watch], lambda: bool(received) or view.closed, sampler)
            outcome = trainer.train()
        if received:  # charlm is about to end, and a second Ctrl-C ends it at once
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    for line in describe.describe_end(run, outcome, began_at, options.out, options.device):
        print_line(line)
    return 128 + received[0] if received and outcome == "stopped" else 0


@contextmanager
def _session(options: argparse.Namespace) -> Iterator[Session]:
    """Lock the run folder; then read the checkpoint and the texts, and build the run."""
    from charlm.checkpoint.run_folder import new_run, stopped_run
    from charlm.config.files import load_config
    from charlm.data.corpus import open_corpus, open_texts
    from charlm.training import session

    _sort_texts(options)
    folder = _named_run(options)
    given: Config | None = None
    if options.config:  # read once, since it may be a pipe
        data = {"path": options.data} if options.data else {}
        given = load_config(options.config, options.set, options.name, data, print_note)
    if options.resume is not None:
        with stopped_run(folder or _run_to_resume(options, given)) as last:
            config = given or _resumed_config(options, last)
            _note_large_text(config.data)
            named = None if given else options.data or ()
            yield session.resume(config, last, options.device, named)
        return
    suggested = _suggested_settings(options) if given is None else lambda _: given
    config = suggested(0)  # everything but the size of a suggested model is correct
    folder = options.out / config.name
    with new_run(folder):
        _note_large_text(config.data)
        texts = open_texts(config.data)
        if given is None:
            config = suggested(len(open_corpus(config.data, opened=texts).split("train")))
        yield session.start(config, folder, options.device, options.init_from, texts)


def _sort_texts(options: argparse.Namespace) -> None:
    """Put what was given as TEXT where it belongs, into --config or --data.

    Raises:
        CharlmError: there are two configs, or a run.
    """
    from charlm.checkpoint.format import LAST
    from charlm.config.files import is_config

    texts, configs = [], [options.config] if options.config else []
    for text in options.text:
        # Path.exists raises an error for a name that is too long
        if text.endswith(".safetensors") or os.path.exists(Path(text) / LAST):  # noqa: PTH110
            raise CharlmError(
                f"{text}: this is a run and no text; to continue it: charlm train --resume "
                f"{shlex.quote(text)}"
            )
        if is_config(Path(text)):
            configs.append(Path(text))
        else:
            texts.append(text)
    if len(configs) > 1:
        raise CharlmError(
            f"train: {configs[0]} and {configs[1]} are both configs; give one, and --data for a "
            "text that is YAML"
        )
    options.config = configs[0] if configs else None
    options.data = [*texts, *(options.data or ())]
    options.set = train_options.overrides(options)


def _named_run(options: argparse.Namespace) -> Path | None:
    """The folder of the run that --resume names, if it names one; --name is then its name.

    Raises:
        CharlmError: it does not exist, or --name names another one.
    """
    from charlm.checkpoint.read import find_checkpoint, find_run

    if options.init_from:
        options.init_from = find_checkpoint(options.init_from, options.out)
    if not options.resume:
        return None
    folder = find_run(Path(options.resume), options.out)
    if options.name not in (None, folder.name):
        raise CharlmError(f"--name {options.name}: --resume names another run; leave --name out")
    options.name = folder.name
    return folder


def _run_to_resume(options: argparse.Namespace, given: Config | None) -> Path:
    """The run of --name or the config, else the one named after the text, else the newest."""
    from charlm.checkpoint.format import LAST
    from charlm.checkpoint.read import find_checkpoint
    from charlm.config.suggest import name_for

    if name := given.name if given else options.name:
        return Path(options.out / name)
    if options.data and (options.out / name_for(tuple(options.data)) / LAST).is_file():
        return Path(options.out / name_for(tuple(options.data)))
    return find_checkpoint(None, options.out).parent


def _resumed_config(options: argparse.Namespace, last: Checkpoint) -> Config:
    """The settings of a resumed run without --config: of its config.yaml or its checkpoint."""
    from charlm.checkpoint.run_folder import CONFIG, edited_config
    from charlm.config.compare import differences
    from charlm.config.files import parse_config

    recorded, folder = last.meta.config, last.path.parent
    edited = edited_config(folder, recorded)
    if edited is not None:
        changes = differences(recorded, edited.model_copy(update={"name": recorded.name}))
        listed = ", ".join(f"{key} is {new!r}, was {old!r}" for key, (old, new) in changes.items())
        print_note(f"{folder / CONFIG} was edited: {listed}")
    settings = (edited or recorded).model_dump(mode="json")
    if options.data:
        settings["data"]["path"] = options.data
    settings["name"] = folder.name
    hint = "; this is the name of the run folder, so rename it"
    return parse_config(settings, options.set, name_hint=hint)


def _suggested_settings(options: argparse.Namespace) -> Callable[[int], Config]:
    """Return a function that gives the settings of a new run without --config.

    Its argument is the number of characters to train on.
    """
    from charlm.checkpoint.read import find_checkpoint, read_meta
    from charlm.config.files import parse_config
    from charlm.config.suggest import fit_to_model, suggest

    if not options.data:
        raise CharlmError(
            "train: give a text, a config, or --resume to continue a run, for example: "
            "charlm train mybook.txt"
        )
    like = read_meta(find_checkpoint(options.init_from)).config if options.init_from else None

    def suggested(chars: int) -> Config:
        settings = suggest(tuple(options.data), chars)
        if like is not None:
            fit_to_model(settings, like)
        return parse_config(settings, options.set, options.name)

    return suggested


def _note_large_text(data: DataConfig) -> None:
    """Print a note if the text must be read and encoded first and that takes a while."""
    from charlm.data.cache import bytes_to_read
    from charlm.data.sources import find_sources

    paths = [path for path in (data.path, data.val_path, data.test_path) if path]
    size = sum(bytes_to_read(find_sources(path, data), data) for path in paths) / 1e6
    if size > LARGE_MB:
        print_note(f"reading and encoding {size:,.0f} MB of text")
