"""Training a model, with the loop of `charlm train`."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.api import arguments
from charlm.api.model import Model, load
from charlm.checkpoint.read import find_checkpoint, find_run
from charlm.config import Config
from charlm.config.files import load_config, parse_config
from charlm.config.suggest import minutes_problem, name_for
from charlm.machine import limit_spinning
from charlm.observer import Observer, Record

if TYPE_CHECKING:
    from charlm.training.request import Request
    from charlm.training.session import Session
    from charlm.training.trainer import Trainer

Paths = str | Path | Sequence[str | Path]


@arguments.hinted
def train(
    data: Paths | None = None,
    *,
    minutes: float | None = None,
    config: str | Path | Mapping[str, Any] | Config | None = None,
    set: Mapping[str, Any] | None = None,
    name: str | None = None,
    out: str | Path = "checkpoints",
    device: str = "auto",
    resume: bool | str | Path = False,
    init_from: str | Path | None = None,
    observers: Sequence[Observer] = (),
) -> Model:
    """Train a model on a text, and return it with the weights of the lowest validation loss.

    The run and its folder are those of `charlm train`. Ctrl-C, or a notebook's button, saves the
    run before it raises KeyboardInterrupt, and `resume=True` continues it. Messages and losses go
    to the observers and to the logger `charlm`: `logging.basicConfig(level="INFO")` shows them.

    Args:
        data: the text: a file, a folder, a glob, the name of a well-known text, or several of
            these. Without a config, settings are chosen for it.
        minutes: how long this may take, with everything. The settings are chosen for the text,
            this time and the speed of this machine. With resume: how much longer.
        config: a YAML file, or settings as nested dictionaries or as a Config.
        set: further settings by their dotted names, such as {"model.hidden_size": 512}.
        name: the name of the run; the default is that of the config, otherwise that of the text.
        out: the folder that contains the run folders.
        device: auto, cpu, cuda, cuda:N or mps.
        resume: the name or the folder of a run to continue. True for the run of the name or the
            text, or else the newest run under `out`.
        init_from: a checkpoint, a run folder or the name of a run whose weights to start with.
        observers: receive what is measured; see charlm.observer.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value, or does not fit the others.
        CharlmError: the run cannot start or go on; see charlm.errors.
        KeyboardInterrupt: it was interrupted, and has been saved.
    """
    started = time.monotonic()
    limit_spinning(5_000)
    from charlm.training.prepare import prepare

    request = _request(data, minutes, config, set, name, out, device, resume, init_from)
    with prepare(request, arguments.notify) as ready, _interruptible() as interrupted:
        for notice in ready.notices:
            arguments.notify(notice)
        trainer = make_trainer(ready, [_Log(), *observers], interrupted.is_set, started)
        outcome = trainer.train()
    folder = ready.run.folder
    if interrupted.is_set() and outcome == "stopped":
        raise KeyboardInterrupt(f"{folder} is saved at step {ready.run.progress.step:,}")
    return load(folder)


def make_trainer(
    ready: Session, observers: Sequence[Observer], should_stop: Callable[[], bool], started: float
) -> Trainer:
    """The trainer of a run, which also samples and records units for TensorBoard.

    Args:
        started: see `Trainer`; by time.monotonic().
    """
    from charlm.insight.watch import Watch
    from charlm.sampling.preview import preview

    run = ready.run
    sampler = functools.partial(preview, run.config, run.corpus.vocab)
    trainer = ready.trainer([*observers], should_stop, sampler, started=started)
    if run.config.eval.insight and run.processes.is_first:
        ids = run.corpus.split("val")
        trainer.observers.append(Watch(lambda: trainer.log.board.insight, ids, ready.model))
    return trainer


class _Log(Observer):
    """Logs what is measured."""

    def record(self, record: Record) -> None:
        arguments.logger.info(
            "step %d: %s %.4f nats/char, %.4f bits/char",
            *(record.step, record.split, record.loss, record.bits_per_char),
        )

    def notice(self, text: str) -> None:
        arguments.notify(text)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Yield an event that the first SIGINT sets. The second one is a KeyboardInterrupt.

    Only the main thread receives signals. In another one nothing changes.
    """
    event, usual = threading.Event(), signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or usual in (None, signal.SIG_IGN):
        yield event
        return

    def receive(_number: int, _frame: object) -> None:
        event.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, receive)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, usual)


# --- arguments --------------------------------------------------------------------------------


def _request(
    data: Paths | None,
    minutes: float | None,
    config: str | Path | Mapping[str, Any] | Config | None,
    settings: Mapping[str, Any] | None,
    name: str | None,
    out: str | Path,
    device: str,
    resume: bool | str | Path,
    init_from: str | Path | None,
) -> Request:
    """Check the arguments of `train`."""
    from charlm.training.request import Request

    if not data and config is None and not resume:
        raise TypeError("train() needs data=, config= or resume=True")
    if resume and init_from is not None:
        raise ValueError("resume= continues a run that has weights already; leave out init_from=")
    run = None if isinstance(resume, bool) else find_run(Path(resume), Path(out))
    if run is not None and name not in (None, run.name):
        raise ValueError(f"name={name}: resume= names another run; leave out name=")
    if minutes is not None:
        _check_minutes(minutes, alone=config is None)
    paths = paths_of(data)
    overrides = _overrides(settings or {})
    return Request(
        config=None if config is None else _read_config(config, paths, overrides, name),
        data=paths,
        minutes=minutes,
        overrides=overrides,
        name=run.name if run else None if name is None else arguments.text("name", name),
        out=Path(out),
        device=arguments.text("device", device),
        resume=bool(resume),
        run=run,
        init_from=None if init_from is None else find_checkpoint(Path(init_from), Path(out)),
    )


def _check_minutes(minutes: float, alone: bool) -> None:
    if not isinstance(minutes, int | float) or isinstance(minutes, bool):
        raise TypeError(f"minutes= should be a number, not {type(minutes).__name__}")
    if problem := minutes_problem(minutes):
        raise ValueError(f"minutes={minutes:g} {problem}")
    if not alone:
        raise ValueError(
            "minutes= is for settings that are chosen for a text; with config=, use "
            'set={"train.max_seconds": SECONDS}'
        )


def paths_of(given: Paths | None) -> tuple[str, ...]:
    """The paths of `data=`; none for None.

    Raises:
        TypeError: it is neither a path nor a sequence of paths.
    """
    if given is None:
        return ()
    paths = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(paths, Sequence) or not all(
        isinstance(it, str | os.PathLike) for it in paths
    ):
        raise TypeError("data= should be a path or a list of paths")
    return tuple(str(path) for path in paths)


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings by their dotted names as `KEY=VALUE`."""
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise TypeError("set= should be a dictionary of settings by their dotted names")
    return [f"{key}={_value(key, value)}" for key, value in settings.items()]


def _value(key: str, value: Any) -> str:
    """A value as in `--set`."""
    if isinstance(value, str | os.PathLike):
        return str(value)
    try:
        return json.dumps(value)
    except TypeError as error:
        raise TypeError(f"set={key}: {type(value).__name__} is no value of a setting") from error


def _read_config(
    config: str | Path | Mapping[str, Any] | Config,
    paths: tuple[str, ...],
    overrides: list[str],
    name: str | None,
) -> Config:
    data = {"path": paths} if paths else {}
    if isinstance(config, str | os.PathLike):
        return load_config(Path(config), overrides, name, data, arguments.notify)
    if isinstance(config, Config):
        config = config.model_dump(mode="json")
    if not isinstance(config, Mapping):
        raise TypeError(
            f"config= should be a file, a dictionary or a Config, not {type(config).__name__}"
        )
    raw = ({"name": name_for(paths)} if paths else {}) | dict(config)
    if data:
        raw["data"] = {**(raw.get("data") or {}), **data}
    return parse_config(raw, overrides, name, note=arguments.notify)
