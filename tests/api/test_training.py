"""charlm.train: the runs of the command line, from Python."""

from __future__ import annotations

import ast
import logging
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

import charlm
from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import read_meta
from charlm.config.files import parse_config
from charlm.errors import CharlmError, ConfigError
from charlm.observer import Observer, Record
from tests.conftest import TinyConfig, TinyRun, write_yaml
from tests.training.helpers import AfterEachStep, assert_same_run, same_tensors

SMALL = {"model.hidden_size": 8, "train.batch_size": 2, "train.threads": 1, "eval.max_chars": 100}


@pytest.mark.parametrize("kind", ["gru", "gpt"])
def test_a_run_is_that_of_the_command(
    kind: str, tiny_run: TinyRun, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    model = charlm.train(config=tiny_config(kind), out=tmp_path, device="cpu")
    assert model.path == tmp_path / kind / BEST
    assert_same_run(tmp_path / kind, tiny_run(kind))


def test_a_config_is_a_file_a_dictionary_or_a_config(
    tiny_config: TinyConfig, tmp_path: Path, tiny_text: Path
) -> None:
    raw = tiny_config("rnn")
    other = shutil.copy(tiny_text, tmp_path / "other.txt")
    configs: list[Any] = [
        raw,
        parse_config(raw),
        write_yaml(tmp_path / "c.yaml", raw),
        tmp_path / "c.yaml",
    ]
    folders = []
    for i, config in enumerate(configs):
        given = None if i < 3 else Path(other)
        model = charlm.train(given, config=config, name=f"run {i}", out=tmp_path, device="cpu")
        folders.append(model.path.parent)
    assert len({str(folder) for folder in folders}) == 4
    assert all(same_tensors(folder / LAST, folders[0] / LAST) for folder in folders)
    assert model.config.data.path == (str(other),)


def test_a_config_without_a_name_has_that_of_the_text(
    tiny_config: TinyConfig, tmp_path: Path, tiny_text: Path
) -> None:
    raw = {key: value for key, value in tiny_config("rnn").items() if key not in ("name", "data")}
    model = charlm.train(str(tiny_text), config=raw, out=tmp_path, device="cpu")
    assert model.path.parent == tmp_path / "tiny"
    with pytest.raises(ConfigError, match="name: missing"):
        charlm.train(config=raw | {"data": {"path": str(tiny_text)}}, out=tmp_path)


def test_minutes_limit_the_chosen_settings(tmp_path: Path, tiny_text: Path) -> None:
    model = charlm.train(tiny_text, minutes=0.01, set=SMALL, out=tmp_path, device="cpu")
    train = read_meta(tmp_path / "tiny" / LAST).config.train
    assert (train.max_seconds, train.max_steps, train.max_epochs) == (0.6, None, None)
    assert (model.config.model.kind, train.batch_size) == ("lstm", 2)
    assert read_meta(tmp_path / "tiny" / LAST).progress.finished


def test_minutes_continue_a_run_for_that_long(tmp_path: Path, tiny_text: Path) -> None:
    settings = SMALL | {"train.max_steps": 2, "train.schedule.warmup_steps": 0}
    charlm.train(tiny_text, set=settings, out=tmp_path, device="cpu")
    before = read_meta(tmp_path / "tiny" / LAST).progress
    charlm.train(resume="tiny", minutes=0.01, out=tmp_path, device="cpu")
    after = read_meta(tmp_path / "tiny" / LAST)
    train = after.config.train
    assert (train.max_steps, train.max_epochs) == (None, None)
    assert train.max_seconds == pytest.approx(before.wall_s + 0.6)
    assert after.progress.finished
    assert after.progress.step > before.step


def test_settings_that_depend_on_the_batch_need_no_config(tmp_path: Path, tiny_text: Path) -> None:
    settings = SMALL | {"train.max_steps": 1, "train.grad_accum": 2, "train.batch_size": 4}
    config = charlm.train(tiny_text, set=settings, out=tmp_path, device="cpu").config
    assert (config.train.batch_size, config.train.grad_accum) == (4, 2)


def test_settings_are_python_values(tmp_path: Path, tiny_text: Path) -> None:
    settings = SMALL | {
        "train.max_steps": 1, "train.max_epochs": None, "train.schedule.warmup_steps": 0,
        "data.include": ["*.txt", "[ab].md"], "sample.prompt": "3: null", "eval.insight": False,
        "train.optimizer.lr": 1e-3, "data.val_path": tiny_text,
    }  # fmt: skip
    config = charlm.train([tiny_text], set=settings, out=tmp_path, device="cpu").config
    assert config.data.include == ("*.txt", "[ab].md")
    assert config.data.val_path == (str(tiny_text),)
    assert (config.train.max_epochs, config.train.max_steps) == (None, 1)
    assert (config.sample.prompt, config.eval.insight) == ("3: null", False)
    assert config.train.optimizer.lr == 1e-3


# --- stopping and resuming --------------------------------------------------------------------


class Stopper(Observer):
    """Sends SIGINT after the third step, as Ctrl-C and a notebook's button do."""

    def __init__(self) -> None:
        self.steps = 0

    def progress(self, fraction: float) -> None:  # noqa: ARG002
        self.steps += 1
        if self.steps == 3:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_an_interrupted_run_is_saved_and_goes_on(
    kind: str, tiny_run: TinyRun, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=f"{kind} is saved at step 3"):
        charlm.train(config=tiny_config(kind), out=tmp_path, device="cpu", observers=[Stopper()])
    assert signal.getsignal(signal.SIGINT) is before
    assert read_meta(tmp_path / kind / LAST).progress.step == 3
    model = charlm.train(resume=True, name=kind, out=tmp_path, device="cpu")
    assert model.meta.progress.step == 6
    assert_same_run(tmp_path / kind, tiny_run(kind))
    longer = charlm.train(resume=kind, out=tmp_path, device="cpu", set={"train.max_steps": 8})
    assert read_meta(longer.path.parent / LAST).progress.step == 8


def test_a_run_starts_from_the_weights_of_a_run_by_its_name(
    tiny_run: TinyRun, tiny_text: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run("gru"), tmp_path / "gru")
    off = {"train.max_steps": 1, "train.max_epochs": None, "eval.sample_every": None}
    model = charlm.train(tiny_text, init_from="gru", out=tmp_path, device="cpu", set=off)
    assert model.config.model == read_meta(tiny_run("gru") / LAST).config.model
    assert model.path.parent == tmp_path / "tiny"
    with pytest.raises(ValueError, match=r"^name=x: resume= names another run; leave out name=$"):
        charlm.train(resume=tmp_path / "gru", name="x")


def test_a_second_interrupt_is_at_once(tiny_config: TinyConfig, tmp_path: Path) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        charlm.train(
            config=tiny_config("rnn"), out=tmp_path, device="cpu", observers=[AfterEachStep(twice)]
        )
    assert read_meta(tmp_path / "rnn" / LAST).progress.step == 0


def test_it_trains_in_another_thread(tiny_config: TinyConfig, tmp_path: Path) -> None:
    models: list[Any] = []

    def work() -> None:
        models.append(charlm.train(config=tiny_config("rnn"), out=tmp_path, device="cpu"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert models[0].meta.progress.step == 6


# --- messages -----------------------------------------------------------------------------------


def test_losses_go_to_observers_and_the_logger(
    tiny_config: TinyConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Losses(Observer):
        def record(self, record: Record) -> None:
            seen.append(f"step {record.step}: {record.split} {record.loss:.4f} nats/char")

    seen: list[str] = []
    raw = tiny_config("rnn")
    raw["train"] |= {"max_seconds": 100}
    with caplog.at_level(logging.INFO, "charlm"):
        charlm.train(config=raw, out=tmp_path, device="cpu", observers=[Losses()])
    logged = [it.getMessage() for it in caplog.records if it.levelname == "INFO"]
    assert [line.rpartition(", ")[0] for line in logged] == seen
    assert len(seen) == 5
    warnings = [it.getMessage() for it in caplog.records if it.levelname == "WARNING"]
    assert warnings[0].startswith("train.max_seconds: the schedule follows the clock")


def test_an_edited_config_is_used_and_reported(
    workplace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = workplace / "checkpoints" / "lstm" / "config.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    raw["train"]["max_steps"] = 7
    write_yaml(path, raw)
    charlm.train(resume=True, device="cpu")
    assert read_meta(path.with_name(LAST)).progress.step == 7
    assert "config.yaml was edited: train.max_steps is 7, was 6" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "TypeError train() needs data=, config= or resume=True"),
        ({"data": 5}, "TypeError data= should be a path or a list of paths"),
        ({"data": ["a", 5]}, "TypeError data= should be a path or a list of paths"),
        ({"minutes": "5"}, "TypeError minutes= should be a number, not str"),
        ({"minutes": 0}, "ValueError minutes=0 should be above 0"),
        ({"minutes": 1e9}, "ValueError minutes=1e+09 should be above 0 and at most 16,666,667"),
        ({"minutes": float("nan")}, "ValueError minutes=nan should be above 0"),
        ({"minutes": 1, "config": {}}, "ValueError minutes= is for settings that are chosen"),
        ({"config": 5}, "TypeError config= should be a file, a dictionary or a Config, not int"),
        ({"set": "a=1"}, "TypeError set= should be a dictionary of settings by their dotted names"),
        ({"set": {"train.seed": {1}}}, "TypeError set=train.seed: set is no value of a setting"),
        ({"set": {"train.sed": 1}}, "ConfigError train.sed: unknown key; did you mean train.seed"),
        ({"minute": 1}, "TypeError train() got an unexpected keyword argument 'minute'; did "
         "you mean minutes=?"),
        ({"xyz": 1}, "TypeError train() got an unexpected keyword argument 'xyz'"),
        ({"name": 5}, "TypeError name= should be a string, not int"),
        ({"device": None}, "TypeError device= should be a string, not NoneType"),
        ({"resume": True, "init_from": "x"}, "ValueError resume= continues a run that has weights"),
        ({"resume": True, "name": "x"}, "CheckpointError x: no last.safetensors to resume from"),
        ({"init_from": "x"}, "CheckpointError x: no such checkpoint or run"),
        ({"data": "missing.txt"}, "DataError missing.txt: "),
        ({"data": "missing.txt", "config": "no.yaml"}, "ConfigError no.yaml: cannot read this"),
    ],
)  # fmt: skip
def test_arguments_are_checked(
    arguments: dict[str, Any],
    message: str,
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments and not arguments.keys() & {"data", "config", "resume"}:
        arguments = {"data": tiny_text, **arguments}
    if "out" not in arguments:
        arguments = {"out": ".", **arguments}
    with pytest.raises((CharlmError, TypeError, ValueError)) as caught:
        charlm.train(**arguments)
    assert f"{caught.type.__name__} {caught.value}".startswith(message)
    assert "\n" not in str(caught.value)
    assert os.listdir() == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 2), ("n_layer", 1), ("learning_rate", 0.5), ("model", "gru"), ("seed", 3)],
)
def test_the_hint_for_the_name_of_a_setting_can_be_followed(
    name: str, value: object, tiny_text: Path, tmp_path: Path
) -> None:
    with pytest.raises(TypeError) as caught:
        charlm.train(tiny_text, out=tmp_path, **{name: value})  # type: ignore[arg-type]
    _, _, hint = str(caught.value).partition("; did you mean set=")
    settings = ast.literal_eval(hint.removesuffix("?"))
    assert list(settings.values()) == [value]
    small = SMALL | {"train.max_steps": 1} | settings
    model = charlm.train(tiny_text, out=tmp_path, device="cpu", set=small)
    (key,) = settings
    found: Any = model.config
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_threads_of_openmp_do_not_spin(tiny_text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(CharlmError):
        charlm.evaluate("missing")
    assert os.environ["GOMP_SPINCOUNT"] == "5000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    with pytest.raises(TypeError):
        charlm.train()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
