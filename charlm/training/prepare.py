"""From what a user asks for to a run that is ready: its folder, its settings and its texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import Checkpoint, find_checkpoint, read_meta
from charlm.checkpoint.run_folder import CONFIG, edited_config, new_run, stopped_run
from charlm.config import Config, DataConfig
from charlm.config.compare import varying
from charlm.config.describe import describe_model
from charlm.config.files import limiting, parse_config
from charlm.config.kinds import kind_of
from charlm.config.shown import shown
from charlm.config.suggest import (
    DEFAULT_SECONDS,
    KINDS,
    LAPTOP,
    Choice,
    choose,
    describe_choice,
    explain,
    fit_heads,
    name_for,
    suggest,
)
from charlm.config.train import LIMITS
from charlm.data.cache import bytes_to_read
from charlm.data.corpus import open_corpus, open_texts
from charlm.data.findings import findings
from charlm.data.sources import find_sources
from charlm.processes import Processes
from charlm.training import session
from charlm.training.request import Request
from charlm.training.session import Session
from charlm.training.speed import measure_speed
from charlm.training.together import check_same, follow, lead, refuse_pipes

UNKNOWN_CHARS = 1_000_000  # for settings that do not depend on the length of the text
LARGE_MB = 300  # reading and encoding this takes a second or two


@contextmanager
def prepare(
    request: Request, notify: Callable[[str], None], processes: Processes | None = None
) -> Iterator[Session]:
    """Lock the run folder; then read the checkpoint and the texts, and build the run.

    Args:
        notify: is called with lines about what takes long or was edited. The other lines for the
            user are in the session.
        processes: those that train the run. The first prepares it, and the others follow.

    Raises:
        CharlmError: the run cannot start; see `session.start` and `session.resume`.
    """
    processes = processes or Processes()
    check_same(request, processes)
    if not processes.is_first:
        yield follow(processes)
        return
    with _prepared(request, notify, processes) as ready:
        lead(ready, processes)
        yield ready


@contextmanager
def _prepared(
    request: Request, notify: Callable[[str], None], processes: Processes
) -> Iterator[Session]:
    """Prepare a run in the first process."""
    if restarted := _restarted(request, processes):
        request = replace(request, resume=True, run=restarted)
    if request.resume:
        with stopped_run(request.run or _run_to_resume(request)) as last:
            config = request.config or _resumed_config(request, last, notify)
            _check_text(config.data, notify, processes)
            named = None if request.config else request.data
            yield session.resume(config, last, request.device, named, processes.size)
        return
    like = _recorded(request)
    config = request.config or _chosen(request, like)[0]
    folder = request.out / config.name
    with new_run(folder):
        _check_text(config.data, notify, processes)
        texts = open_texts(config.data)
        lines: list[str] = []
        if request.config is None:
            chars = len(open_corpus(config.data, opened=texts).split("train"))
            config, lines = _chosen(request, like, chars)
        ready = session.start(config, folder, request.device, request.init_from, texts)
        about_text = findings(ready.run.corpus, ready.run.config.data)
        yield replace(ready, notices=[*lines, *ready.notices, *about_text])


def _restarted(request: Request, processes: Processes) -> Path | None:
    """The folder of a new run that torchrun starts again, because a process ended or came."""
    if request.resume or not processes.launched_by:
        return None
    name = request.config.name if request.config else request.name or name_for(request.data)
    last = request.out / name / LAST
    if not last.is_file() or set(processes.launched_by).isdisjoint(read_meta(last).launched_by):
        return None
    return last.parent


def _run_to_resume(request: Request) -> Path:
    """The run of the name or the config, else the one named after the text, else the newest."""
    if name := request.config.name if request.config else request.name:
        return request.out / name
    if request.data and (request.out / name_for(request.data) / LAST).is_file():
        return request.out / name_for(request.data)
    return find_checkpoint(None, request.out).parent


def _resumed_config(request: Request, last: Checkpoint, notify: Callable[[str], None]) -> Config:
    """The settings of a resumed run without a config: of its config.yaml or its checkpoint."""
    recorded, folder = last.meta.config, last.path.parent
    edited = edited_config(folder, recorded)
    if edited is not None:
        changes = varying([recorded, edited.model_copy(update={"name": recorded.name})])
        listed = ", ".join(
            f"{key} is {shown(new)}, was {shown(old)}" for key, (old, new) in changes.items()
        )
        notify(f"{folder / CONFIG} was edited: {listed}")
    settings = (edited or recorded).model_dump(mode="json")
    if request.data:
        settings["data"]["path"] = list(request.data)
    settings["name"] = folder.name
    if request.minutes is not None:  # in addition to the time so far
        settings["train"] |= dict.fromkeys(LIMITS)
        settings["train"]["max_seconds"] = last.meta.progress.wall_s + 60 * request.minutes
    hint = "; this is the name of the run folder, so rename it"
    return parse_config(settings, request.overrides, name_hint=hint)


def _recorded(request: Request) -> Config | None:
    """The settings of the checkpoint to start with, if the others are chosen for it."""
    if request.config is not None or request.init_from is None:
        return None
    return read_meta(find_checkpoint(request.init_from)).config


def _chosen(
    request: Request, like: Config | None, chars: int | None = None
) -> tuple[Config, list[str]]:
    """Return settings that are chosen for a text, and lines that say why.

    Args:
        like: see `_recorded`.
        chars: number of characters to train on; None if it is not known yet. Then the sizes of the
            model and of the run are not correct, and nothing is measured.
    """
    kind = like.model.kind if like else kind_of("model", {}, request.overrides)
    kind = kind if kind in KINDS else "lstm"  # parse_config refuses another one
    seconds = None if request.minutes is None else 60 * request.minutes

    def config_of(choice: Choice) -> Config:
        settings = suggest(request.data, choice, seconds, like)
        if like is None:
            fit_heads(settings, request.overrides)
        return parse_config(settings, request.overrides, request.name)

    config = config_of(choose(kind, UNKNOWN_CHARS, 60, LAPTOP))
    if chars is None:
        return config, []
    time = seconds or DEFAULT_SECONDS
    if like is not None:
        # where the user limits the run, nothing depends on the speed
        speed = (
            LAPTOP
            if limiting(request.overrides)
            else measure_speed(kind, config.train, request.device)
        )
        share = KINDS[kind].n_layer / like.model.n_layer  # the speed is that of KINDS' models
        return config_of(choose(kind, chars, share * time, speed, like.model.width)), []
    choice = choose(kind, chars, time, measure_speed(kind, config.train, request.device))
    config = config_of(choice)
    if describe_model(config.model) != describe_model(choice.model):
        own = f"instead of your {describe_model(config.model)}"
        return config, [f"charlm would choose {describe_choice(choice)}, {own}"]
    return config, explain(choice, chars, time, bool(limiting(request.overrides)))


def _check_text(data: DataConfig, notify: Callable[[str], None], processes: Processes) -> None:
    """Notify if the text must be read and encoded first and that takes a while.

    Raises:
        DataError: a text is a pipe, which several processes cannot read.
    """
    paths = [path for path in (data.path, data.val_path, data.test_path) if path]
    texts = [find_sources(path, data) for path in paths]
    if not processes.is_alone:
        refuse_pipes(source for text in texts for source in text)
    size = sum(bytes_to_read(text, data) for text in texts) / 1e6
    if size > LARGE_MB:
        notify(f"reading and encoding {size:,.0f} MB of text")
