"""`charlm train`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from charlm.cli import train_options
from charlm.cli.output import print_line, print_note
from charlm.cli.signals import collected
from charlm.errors import CharlmError, PeerEndedError
from charlm.launch import limit_messages

if TYPE_CHECKING:
    from charlm.config import Config
    from charlm.training.request import Request


def train(options: argparse.Namespace) -> int:
    """Train a run to its end, or until a signal arrives."""
    started = time.monotonic()
    parent = os.getppid()  # before anything that takes long
    limit_messages()
    from charlm.api.training import make_trainer
    from charlm.cli import describe, terminal
    from charlm.launch import joined
    from charlm.training.prepare import prepare

    with ExitStack() as stack:
        try:
            processes = stack.enter_context(joined(options.timeout, parent))
            with processes.together():
                request = _request(options, print_note if processes.is_first else lambda _: None)
            ready = stack.enter_context(prepare(request, print_note, processes))
        except KeyboardInterrupt as interrupt:
            interrupt.add_note("interrupted before the first step, so nothing was changed")
            raise
        run = ready.run
        view, began_at = terminal.View(run, options.plot), run.progress.step
        if processes.is_first:
            view.begin(describe.describe_run(ready))
            for notice in ready.notices:
                view.notice(notice)
        # SIGHUP: the terminal was closed
        with collected("SIGINT", "SIGTERM", "SIGHUP") as received:
            trainer = make_trainer(
                ready,
                [view],
                lambda: bool(received) or view.closed or processes.has_lost_launcher(),
                started,
            )
            outcome = trainer.train()
        if received:  # charlm is about to end, and a second Ctrl-C ends it at once
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        stopped_by = max(processes.all(received[0] if received else 0))
        if processes.is_first:
            view.draw()
            for line in describe.describe_end(run, outcome, began_at, options.out, options.device):
                print_line(line)
        # torchrun ends all processes when one has ended, also before the first has printed
        with suppress(PeerEndedError):
            processes.wait()
    return 128 + stopped_by if stopped_by and outcome == "stopped" else 0


def _request(options: argparse.Namespace, notify: Callable[[str], None]) -> Request:
    """What to train.

    Raises:
        CharlmError: arguments contradict each other, or a file is wrong.
    """
    from charlm.config.files import load_config
    from charlm.training.request import Request

    _sort_texts(options)
    run = _named_run(options)
    config: Config | None = None
    if options.config:  # read once, since it may be a pipe
        data = {"path": options.data} if options.data else {}
        config = load_config(options.config, options.set, options.name, data, notify)
    if not (config or options.data or options.resume is not None):
        raise CharlmError(
            "train: give a text, a config, or --resume to continue a run, for example: "
            "charlm train mybook.txt"
        )
    _check_minutes(options)
    return Request(
        config=config,
        data=tuple(options.data),
        minutes=options.minutes,
        overrides=options.set,
        name=options.name,
        out=options.out,
        device=options.device,
        resume=options.resume is not None,
        run=run,
        init_from=options.init_from,
    )


def _check_minutes(options: argparse.Namespace) -> None:
    """Check --minutes.

    Raises:
        CharlmError: the time is no number that a run can have, or something else limits the run.
    """
    from charlm.config.files import limiting
    from charlm.config.suggest import minutes_problem

    minutes = options.minutes
    if minutes is None:
        return
    if problem := minutes_problem(minutes):
        raise CharlmError(f"--minutes {minutes:g}: {problem}")
    if options.config:
        raise CharlmError(
            "--minutes chooses settings for a text; with a config, use "
            f"--set train.max_seconds={60 * minutes:.12g}"
        )
    flags = [flag for flag in ("--steps", "--epochs") if getattr(options, flag[2:]) is not None]
    if given := flags or limiting(options.set):
        raise CharlmError(f"--minutes and {given[0]} both limit the run; give one of them")


def _sort_texts(options: argparse.Namespace) -> None:
    """Put what was given as TEXT where it belongs, into --config or --data.

    Raises:
        CharlmError: there are two configs, or a run.
    """
    from charlm.checkpoint.format import LAST
    from charlm.config.files import is_config
    from charlm.config.reference import is_setting

    texts, configs = [], [options.config] if options.config else []
    for text in options.text:
        # Path.exists raises an error for a name that is too long
        if text.endswith(".safetensors") or os.path.exists(Path(text) / LAST):  # noqa: PTH110
            raise CharlmError(
                f"{text}: this is a run and no text; to continue it: charlm train --resume "
                f"{shlex.quote(text)}"
            )
        if is_setting(text) and not os.path.lexists(text):
            raise CharlmError(
                f"{text}: this is a setting and no text; write --set {shlex.quote(text)}"
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
