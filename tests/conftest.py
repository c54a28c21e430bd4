"""Shared fixtures: a small text, small configs, a small trained run of each kind of model."""

from __future__ import annotations

import functools
import importlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import hypothesis
import pytest
import yaml

from charlm.cli import main
from tests.insight.browser import Page, browsing

ROOT = Path(__file__).parents[1]
KINDS = ("rnn", "gru", "lstm", "gpt", "mlp")

if (_corpora := ROOT.parent / "shared" / "corpora").is_dir():
    os.environ.setdefault("CHARLM_DATA", str(_corpora))

# a shell ignores SIGINT in its background processes, and their children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

# the same examples in every run, and no time limit, since the machine may be busy
hypothesis.settings.register_profile("charlm", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("charlm")


class Terminal(io.StringIO):
    """A stream that says it is a terminal, for `contextlib.redirect_stdout` and its like."""

    def isatty(self) -> bool:
        return True


class Result(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str


Charlm = Callable[..., Result]
TinyConfig = Callable[[str], dict[str, Any]]
TinyRun = Callable[[str], Path]


def script_module(name: str) -> ModuleType:
    """A module in scripts/, which is no package."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache."""
    os.environ["CHARLM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    """After the test, PyTorch has as many threads as before it."""
    import torch

    from tests.kernels import with_threads

    with with_threads(torch.get_num_threads()):
        yield


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser with one page. Only for tests with `needs_chromium`."""
    with browsing(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def charlm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Charlm:
    """Run `charlm` in this process with these arguments; returns status, stdout and stderr."""

    def run(*arguments: str | Path, stdin: str | None = None) -> Result:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ending:  # argparse: help, version, mistakes
            status = int(ending.code or 0)
        return Result(status, *capsys.readouterr())

    return run


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the Python interpreter in a new process.

    By default, the working directory is the root of the repository, and the output is captured.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env |= {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    for stream in ("stdout", "stderr"):
        options.setdefault(stream, subprocess.PIPE)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, check=False, timeout=120, encoding="utf-8", env=env, **({"cwd": ROOT} | options)
    )


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of about 20 kB: speeches of short sentences, the same in every run."""
    choose = random.Random(7).choice
    subjects = ("the fox", "a quiet sea", "my lord", "every small bird", "the old king", "no one")
    verbs = ("sees", "loves", "fears", "follows", "forgets", "sings to")
    speakers = ("ANNE", "BORIS", "CLEO")

    def sentence() -> str:
        return f"{choose(subjects)} {choose(verbs)} {choose(subjects)}".capitalize() + choose(".!?")

    def speech() -> str:
        return f"{choose(speakers)}:\n{sentence()} {sentence()}\n\n"

    text = ""
    while len(text) < 20_000:
        text += speech()
    path = tmp_path_factory.mktemp("text") / "tiny.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_config(tiny_text: Path) -> TinyConfig:
    """A raw config for each kind of model: six steps, two evaluations, a sample at the end."""

    def config(kind: str) -> dict[str, Any]:
        network, length = {"hidden_size": 16}, {"seq_len": 16}
        if kind == "gpt":  # its sequences are as long as its context
            network, length = {"n_head": 2, "n_embd": 16, "context": 16}, {}
        if kind == "mlp":
            network |= {"n_embd": 4, "context": 5}
        return {
            "name": kind,
            "data": {"path": str(tiny_text), "val_fraction": 0.05, "test_fraction": 0.05},
            "model": {"kind": kind, "n_layer": 2, **network},
            "train": {"batch_size": 4, "max_steps": 6, "log_every": 2, "threads": 1, **length}
            | {"precision": "fp32", "compile": "off", "kernels": "off"},
            "eval": {
                "every": 3,
                "sample_every": 6,
                "window": 16,
                "n_windows": 10,
                "max_chars": None,
            },
            "sample": {"length": 30},
        }

    return config


@pytest.fixture(scope="session")
def tiny_run(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The run folder of each kind of tiny model, trained at the first call.

    Tests share it. Copy it before you write to it.
    """
    out = tmp_path_factory.mktemp("runs")

    @functools.cache
    def train(kind: str) -> Path:
        return train_with(tiny_config(kind), out)

    return train


def train_with(raw: dict[str, Any], out: Path, *arguments: str | Path) -> Path:
    """Train with a raw config in this process; returns the run folder in `out`."""
    file = out / f"{raw['name']}.yaml"
    write_yaml(file, raw)
    command = ("train", "--config", file, "--out", out, "--device", "cpu", *arguments)
    assert main([str(argument) for argument in command]) == 0
    return out / str(raw["name"])


def write_yaml(path: Path, raw: dict[str, Any]) -> Path:
    """Write a raw config to a file; returns its path."""
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a test's temporary files are created."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def workplace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: TinyConfig, tiny_run: TinyRun
) -> Path:
    """The working directory of a test, with `lstm.yaml` and its run `checkpoints/lstm`."""
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "lstm.yaml", tiny_config("lstm"))
    shutil.copytree(tiny_run("lstm"), tmp_path / "checkpoints" / "lstm")
    return tmp_path
