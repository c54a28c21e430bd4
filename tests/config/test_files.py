"""Read a Config from YAML and KEY=VALUE, and write it as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config.base import LARGEST, SMALLEST
from charlm.config.files import load_config, parse_config, to_yaml, updated
from charlm.config.names import name_problem
from charlm.config.yaml_io import parse_yaml
from charlm.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- YAML ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("3e-4", 3e-4), ("1e3", 1000.0), ("1E+2", 100.0), ("2.5e-3", 2.5e-3), ("-1e3", -1000.0)),
        *((".5", 0.5), ("1.", 1.0), ("0.1", 0.1), ("7", 7), ("-7", -7)),
        *((word, word) for word in ("on", "off", "yes", "no", "y", "On", "OFF")),
        *((word, word) for word in ("e3", "1e", "3e-", "1e3x", "ROMEO", "4.0.1")),
        *(("true", True), ("False", False), ("null", None), ("~", None), ("", None)),
        *(("'1e3'", "1e3"), ('"on"', "on"), ("[1e3, on]", [1000.0, "on"])),
    ],
)
def test_yaml_values_have_the_expected_types(text: str, value: object) -> None:
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("data:\n  path: a\ndata: {}\n", "3:1", "the key data is given twice"),
        ("train:\n  lr: 1\n  lr: 2\n", "3:3", "the key lr is given twice"),
        ("data: {path: a}\n1: 2\n", "2:1", "the key 1 is not a string"),
        ("data: [1,\n", "2:1", "expected the node content"),
        ("data:\n\tpath: a\n", "2:1", r"'\t'"),
        ("a: b: c\n", "1:5", "mapping values are not allowed"),
        ("a: !!python/object:os.system x\n", "1:4", "could not determine a constructor"),
    ],
)
def test_invalid_yaml_is_refused_with_its_position(
    tmp_path: Path, text: str, position: str, words: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}:{position}: not valid YAML: ")
    assert words in str(caught.value)


def test_a_config_that_contains_itself_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "data: &data\n  path: *data\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_config(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "not UTF-8 text at byte 0"),
        (b"data: {path: a}\n# caf\xe9\n", "not UTF-8 text at byte 21"),
        (b"- a\n", "a config is a mapping"),
        (b"just words\n", "a config is a mapping"),
        (b"data: {path: a}\n\x00", "unacceptable character"),
    ],
)
def test_a_file_that_is_not_a_config_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match="cannot read this config") as caught:
            load_config(path)
        assert str(path) in str(caught.value)


# --- defaults < YAML < overrides -------------------------------------------------------------

THREE_LEVELS = "data: {path: a}\ntrain: {batch_size: 8, optimizer: {lr: 3e-4}}\n"


def test_yaml_replaces_defaults_and_overrides_replace_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, THREE_LEVELS)
    plain = load_config(path)
    assert (plain.train.batch_size, plain.train.optimizer.lr) == (8, 3e-4)
    assert plain.train.seq_len == parse_config({"name": "a", "data": {"path": "a"}}).train.seq_len

    config = load_config(path, ["train.batch_size=16", "train.seq_len=10", "sample.prompt=on"])
    assert (config.train.batch_size, config.train.seq_len) == (16, 10)
    assert config.train.optimizer.lr == 3e-4
    assert config.sample.prompt == "on"


def test_the_last_of_several_overrides_is_used(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, THREE_LEVELS), ["train.seed=1", "train.seed=2"])
    assert config.train.seed == 2


def test_an_override_can_set_a_whole_group_or_null(tmp_path: Path) -> None:
    path = write(tmp_path, THREE_LEVELS + "eval: {every: 10}\n")
    config = load_config(path, ["train.optimizer={kind: sgd, lr: 1e-1}", "eval.every="])
    assert config.train.optimizer.kind == "sgd"
    assert config.train.optimizer.lr == 0.1
    assert config.eval.every is None


def test_an_empty_file_and_an_empty_group_can_be_filled_by_overrides(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, ""), ["data.path=a"]).data.path == ("a",)
    assert load_config(write(tmp_path, "data:\ntrain:\n"), ["data.path=a"]).data.path == ("a",)
    with pytest.raises(ConfigError, match="data: missing"):
        load_config(write(tmp_path, "# nothing yet\n"))


def test_the_default_name_is_the_name_of_the_file(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "data: {path: a}\n")).name == "mine"
    path = write(tmp_path, "name: yours\ndata: {path: a}\n")
    assert load_config(path).name == "yours"
    assert load_config(path, ["name=theirs"]).name == "theirs"
    assert load_config(path, ["name=theirs"], name="ours").name == "ours"


def test_data_replaces_the_file_and_overrides_replace_data(tmp_path: Path) -> None:
    path = write(tmp_path, "data: {path: a, unit: byte}\n")
    data = {"path": ["b", "c"]}
    assert load_config(path, data=data).data == load_config(path, ["data.path=[b, c]"]).data
    assert load_config(path, data=data).data.unit == "byte"
    assert load_config(path, ["data.path=d"], data=data).data.path == ("d",)
    for without in ("", "data:\n", "name: mine\n"):
        assert load_config(write(tmp_path, without), data=data).data.path == ("b", "c")
    with pytest.raises(ConfigError, match="data: 5 should be a group of settings"):
        load_config(write(tmp_path, "data: 5\n"), data=data)


@pytest.mark.parametrize("override", ["train.seed", "=5", "train.=5", ".seed=5", "train..seed=5"])
def test_an_override_that_is_not_key_and_value_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="write KEY=VALUE") as caught:
        parse_config({}, [override])
    assert f"set={override}: " in str(caught.value)


def test_an_override_below_a_plain_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"set=model.x=3: model is not a group of settings"):
        parse_config({"model": 5}, ["model.x=3"])


def test_an_override_that_is_not_yaml_is_refused_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^set=train.seed:1:3: not valid YAML: "):
        parse_config({}, ["train.seed=[1"])


def test_overrides_do_not_change_the_given_dictionary() -> None:
    raw: dict[str, Any] = {"name": "a", "data": {"path": "a"}}
    parse_config(raw, ["data.path=b", "train.seed=5"])
    assert raw == {"name": "a", "data": {"path": "a"}}


def test_options_that_are_not_given_change_nothing() -> None:
    sample = parse_config({"name": "a", "data": {"path": "a"}}).sample
    assert updated(sample, temperature=None, length=None) == sample
    assert updated(sample, temperature=0.5).temperature == 0.5


def test_a_wrong_value_is_reported_with_the_option_name() -> None:
    sample = parse_config({"name": "a", "data": {"path": "a"}}).sample
    with pytest.raises(ConfigError) as caught:
        updated(sample, temperature=-1.0, top_k=0)
    heading, first, second = str(caught.value).splitlines()
    assert heading == "2 problems:"
    assert "--temperature: -1.0 should be greater than or equal to 0" in first
    assert "--top-k: 0 should be greater than or equal to 1" in second


# --- to YAML ---------------------------------------------------------------------------------

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._+ -]{0,50}[A-Za-z0-9_+-])?", fullmatch=True).filter(
    lambda name: name_problem(name) is None
)


@given(
    name=NAMES,
    path=st.text(min_size=1),
    prompt=st.text(),
    lr=st.floats(min_value=SMALLEST, max_value=LARGEST),
    model=st.sampled_from([{"kind": "gpt", "bias": True}, {"kind": "rnn", "n_layer": 3}]),
    optimizer=st.sampled_from(["sgd", "rmsprop", "adam", "adamw", "muon"]),
    top_p=st.none() | st.floats(min_value=0.01, max_value=1),
)
@example("3e-4", "1e3", "0e0", 1e-5, {"kind": "gru"}, "sgd", None)
@example("on", "null", "~", 1e9, {"kind": "lstm"}, "adam", 0.5)
@example("a", "b", "\x85", 1.0, {"kind": "lstm"}, "adam", 1.0)
@example("a", "\x85 b", "c", 1.0, {"kind": "lstm"}, "adam", 1.0)
@example("2024-01-01", "a: b", "\r\n \x85\u2028#", 1.0, {"kind": "lstm"}, "adam", 1.0)
def test_a_config_written_as_yaml_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    path: str,
    prompt: str,
    lr: float,
    model: dict[str, Any],
    optimizer: str,
    top_p: float | None,
) -> None:
    config = parse_config(
        {
            "name": name,
            "data": {"path": path},
            "model": model,
            "train": {"optimizer": {"kind": optimizer, "lr": lr}},
            "sample": {"prompt": prompt, "top_p": top_p},
        }
    )
    file = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    file.write_bytes(to_yaml(config).encode())
    assert load_config(file) == config
