"""What is said about a name that belongs to another program."""

from __future__ import annotations

import shlex

import pytest

from charlm.cli import meant
from charlm.cli.arguments import make_parser
from charlm.config.elsewhere import NAMES_ELSEWHERE
from charlm.config.files import parse_config
from charlm.config.reference import settings
from charlm.errors import ConfigError
from tests.cli.test_cli import parsers
from tests.conftest import Charlm, TinyRun

KEYS = {setting.key for setting in settings()}
LEAVES = {key.rpartition(".")[2] for key in KEYS}
OPTIONS = {
    verb: {option for action in parser._actions for option in action.option_strings}
    for verb, parser in parsers(make_parser())
}


def test_every_name_stands_for_a_setting_and_is_none_itself() -> None:
    assert set(NAMES_ELSEWHERE.values()) <= KEYS
    assert not NAMES_ELSEWHERE.keys() & LEAVES


def test_every_verb_and_option_that_is_proposed_exists() -> None:
    for command in meant._VERBS.values():
        verb = command.partition(" --")[0]
        assert verb in OPTIONS
        assert {word for word in command.split() if word.startswith("--")} <= OPTIONS[verb]
    assert not meant._VERBS.keys() & OPTIONS.keys()
    for option in meant._OPTIONS.values():
        assert any(option in options for options in OPTIONS.values())


@pytest.mark.parametrize("name", NAMES_ELSEWHERE)
def test_a_config_error_names_the_setting(name: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {NAMES_ELSEWHERE[name]}\\?"):
        parse_config({"name": "a", "data": {"path": "a"}}, [f"{name}=1"])


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("train a --block_size=64", "--seq-len 64"),  # nanoGPT
        ("train a --learning_rate 1e-3", "--lr 1e-3"),
        ("train a --max_iters=5", "--steps 5"),
        ("train a --eval_interval=50", "--eval-every 50"),
        ("train a --eval_iters=50", "--set eval.n_windows=50"),
        ("train a --out_dir=x", "--out x"),
        ("train a --n_embd=64", "--hidden-size 64"),
        ("sample --num_samples=5", "--num-samples 5"),
        ("sample --max_new_tokens 500", "--length 500"),
        ("sample --start 'once upon'", "--prompt 'once upon'"),
        ("train -data_dir x", "--data x"),  # char-rnn
        ("train a -rnn_size 9", "--hidden-size 9"),
        ("train a -num_layers 2", "--layers 2"),
        ("train a -seq_length 50", "--seq-len 50"),
        ("train a --max_epochs 3", "--epochs 3"),
        ("sample -primetext x", "--prompt x"),
        ("sample -length 9", "--length 9"),
        ("sample -temperature=0.5", "--temperature 0.5"),
        ("train a --units 9", "--hidden-size 9"),  # Keras
        ("train a --validation_split 0.2", "--set data.val_fraction=0.2"),
        ("train a --train.save_every=9", "--set train.save_every=9"),  # a setting as an option
        ("train a --save_every", "--set train.save_every=VALUE"),
        ("config check a --vocab_size 9", "--set data.vocab_size=9"),
        ("eval --splitt test", "--split test"),
    ],
)
def test_an_option_of_another_program_is_translated(
    charlm: Charlm, command: str, hint: str
) -> None:
    words = shlex.split(command)
    result = charlm(*words)
    (line,) = result.err.splitlines()
    assert (result.status, result.out) == (2, "")
    verb = " ".join(words[:2]) if words[0] == "config" else words[0]
    assert line.startswith(f"charlm {verb}: no such option: -")
    assert line.endswith(f"; did you mean {hint}?; see charlm {verb} --help")


@pytest.mark.parametrize(
    "short", [["-t", "0.5"], ["-t0.5"], ["-l", "5"], ["-pthe"], ["-n2", "-l4"]]
)
def test_a_short_option_takes_its_value_with_or_without_a_space(
    charlm: Charlm, tiny_run: TinyRun, short: list[str]
) -> None:
    assert charlm("sample", tiny_run("rnn"), *short).status == 0
