"""Limits: of YAML, of config files, and of every number."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charlm.cli import sample_options
from charlm.config.base import SMALLEST
from charlm.config.files import MAX_BYTES, load_config, parse_config, to_schema
from charlm.config.yaml_io import MAX_DEPTH, MAX_VALUES, parse_yaml
from charlm.errors import ConfigError
from tests.config.test_settings import SCHEMA, nodes

CONFIG = "{name: a, data: {path: a}}\n"
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices in folders")


def chain(link: str) -> str:
    """Nine mappings, each of which has nine aliases of the one before in `link`."""
    lines = ["a: &a {x: 1}"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} {{{link}: [{', '.join([f'*{before}'] * 9)}]}}")
    return "\n".join(lines)


# --- YAML ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "1:21: not valid YAML: more than 20 lists and mappings inside each other"),
        ("{a: " * 5000, "more than 20 lists and mappings inside each other"),
        ("- " * 5000, "more than 20 lists and mappings inside each other"),
        ("a:\n" + "".join(" " * i + "a:\n" for i in range(1, 900)), "inside each other"),
        ("[" + "a, " * MAX_VALUES + "]", "more than 50,000 values, with aliases written out"),
        (chain("x"), "more than 50,000 values, with aliases written out"),
        (chain("<<"), "more than 50,000 values, with aliases written out"),
        ("a: &a [*a]", "1:8: not valid YAML: this alias is inside the value that it refers to"),
        ("&a {*a : 1}", "this alias is inside the value that it refers to"),
        ("a: 1" + "0" * 6000, "is too long for a number"),
        ("a: 0." + "1" * 6000, "is too long for a number"),
        ("a: !!int " + "1:" * 6000 + "1", "is too long for a number"),
        ("a: !!int ''", "1:4: not valid YAML: '' is not of type int"),
        ("a: !!bool maybe", "1:4: not valid YAML: maybe is not of type bool"),
        ("a: !!float x", "1:4: not valid YAML: x is not of type float"),
        ("a: !!int [1]", "expected a scalar node"),
        *(
            (f"a: !!{tag} {value}", "could not determine a constructor for the tag")
            for tag, value in [
                *(
                    ("timestamp", "2024-01-01"),
                    ("timestamp", "x"),
                    ("binary", "aGk="),
                    ("set", "{a}"),
                ),
                *(("omap", "[a: 1]"), ("pairs", "[a: 1]"), ("python/name:os.system", "''")),
            ]
        ),
        ('a: "\\U00110000"', "an escape or a directive has a number that is too large"),
        ('a: "\\UFFFFFFFF"', "an escape or a directive has a number that is too large"),
        ("%YAML 1." + "9" * 6000 + "\n--- a", "a number that is too large"),
        ("? [a]\n: 1", "1:3: not valid YAML: the key is not a string"),
        ("? !!str [a]\n: 1", "1:3: not valid YAML: the key is not a string"),
        ('"\\e[2J": 1\n"\\e[2J": 2', r"the key '\x1b[2J' is given twice"),
        ("a: 1\n---\nb: 2", "but found another document"),
    ],
)
def test_yaml_beyond_a_limit_is_one_printable_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "here")
    assert str(caught.value).startswith("here")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


def test_yaml_within_the_limits_is_read() -> None:
    deepest: Any = parse_yaml("[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1), "here")
    for _ in range(MAX_DEPTH - 1):
        (deepest,) = deepest
    assert deepest == 1
    assert len(parse_yaml("[" + "a, " * (MAX_VALUES - 1) + "]", "here")) == MAX_VALUES - 1
    base = "base: &base {x: 1, y: 2}\n"
    assert parse_yaml(base + "a: {b: [*base, *base]}", "here")["a"]["b"] == [{"x": 1, "y": 2}] * 2
    assert parse_yaml("a: [!!float 1, !!str 2, !!int 3, !!bool true]", "here") == {
        "a": [1.0, "2", 3, True]
    }


def test_a_merged_mapping_can_be_merged_again() -> None:
    text = """
base: &base {x: 1, y: 2}
outer: {middle: &middle {<<: *base, y: 3}}
top: {<<: *middle, z: 4}
"""
    assert parse_yaml(text, "here")["top"] == {"x": 1, "y": 3, "z": 4}
    assert parse_yaml(text, "here")["outer"] == {"middle": {"x": 1, "y": 3}}


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MAX_BYTES, MAX_BYTES + 1, 10**12])
def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(CONFIG + "#", encoding="utf-8")
    with path.open("r+b") as file:
        file.truncate(size)  # sparse: the rest is NUL
    limit = size > MAX_BYTES
    words = "not a config: it has more than 1,000,000 bytes" if limit else "unacceptable character"
    with pytest.raises(ConfigError, match=words):
        load_config(path)


@POSIX
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_refused(path: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^/dev/.*: (this is a device, not|cannot read this config)"
    ):
        load_config(Path(path))


@POSIX
def test_a_pipe_without_a_writer_is_refused_and_one_with_a_writer_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="this pipe is empty; no process writes a config to it"):
        load_config(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that a writer can open it
    with pipe.open("w", encoding="utf-8") as file:
        file.write(CONFIG)
        file.flush()
        threading.Timer(0.2, file.close).start()  # the end of the file, while it is being read
        assert load_config(pipe).data.path == ("a",)
    os.close(reader)


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs /dev/fd")
def test_what_a_shell_substitutes_for_a_process_is_read() -> None:
    """`--config <(...)` is a pipe, which may still be empty when it is opened."""
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "w") as file:
            file.write(CONFIG)

    threading.Timer(0.2, write).start()
    assert load_config(Path(f"/dev/fd/{reader}")).data.path == ("a",)
    os.close(reader)


@pytest.mark.skipif(sys.platform == "win32", reason="such a name is not possible")
def test_a_path_with_a_line_end_or_a_nul_is_one_line(tmp_path: Path) -> None:
    for name in ("a\nb.yaml", "a\x1b[2J.yaml", "a\0b.yaml"):
        with pytest.raises(ConfigError, match="cannot read this config") as caught:
            load_config(tmp_path / name)
        assert str(caught.value).isprintable()


# --- numbers ---------------------------------------------------------------------------------


def numbers(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All numbers in the schema, with their positions."""
    if isinstance(node, dict):
        if node.get("type") in ("integer", "number"):
            yield where, node
        for key, inner in node.items():
            yield from numbers(inner, f"{where}.{key}")
    elif isinstance(node, list):
        for i, inner in enumerate(node):
            yield from numbers(inner, f"{where}.{i}")


def test_every_number_has_both_bounds_in_the_schema() -> None:
    found = dict(numbers(SCHEMA))
    assert len(found) > 60
    for where, node in found.items():
        assert {"minimum", "exclusiveMinimum"} & node.keys(), where
        assert {"maximum", "exclusiveMaximum"} & node.keys(), where


NUMBERS = {
    key: node
    for key in (
        *("data.vocab_min_count", "data.vocab_size", "model.n_layer", "model.hidden_size"),
        *("train.batch_size", "train.seq_len", "train.max_steps", "train.max_epochs"),
        *("train.max_seconds", "train.patience", "train.seed", "train.threads"),
        *("train.optimizer.lr", "train.optimizer.weight_decay", "train.optimizer.eps"),
        *("train.save_every", "train.keep_last", "eval.every", "eval.window", "eval.n_windows"),
        *("sample.length", "sample.temperature", "sample.top_k", "sample.repetition_penalty"),
    )
    for found in nodes(SCHEMA, key.split("."))
    for _, node in numbers(found)
}


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_accepted_up_to_its_bound_and_the_message_says_the_bound(key: str) -> None:
    raw = {"name": "a", "data": {"path": "a"}}
    node = NUMBERS[key]
    bound = node.get("maximum", node.get("exclusiveMaximum", 0) - 1)
    parse_config(raw, [f"{key}={bound}"])
    for too_large in (f"{bound + 1}", f"{10.0**30}", "9" * 90):
        with pytest.raises(ConfigError, match=rf"^{key}: .* should be less than ") as caught:
            parse_config(raw, [f"{key}={too_large}"])
        assert float(str(caught.value).split()[-1].replace(",", "")) >= bound


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.hidden_size=65536", "train.batch_size=1048576", "train.seq_len=4096"],
        ["model.kind=gpt", "model.n_embd=65536", "model.n_head=512", "model.context=65536"],
        ["train.max_steps=1000000000000", "train.seed=18446744073709551615", "train.threads=512"],
        ["train.optimizer.lr=1e-9", "train.optimizer.eps=1e-20", "train.grad_clip=1e9"],
        ["sample.temperature=1e-9", "sample.length=1000000000", "sample.top_k=1000000"],
    ],
)
def test_large_but_sane_values_are_accepted(overrides: list[str]) -> None:
    parse_config({"name": "a", "data": {"path": "a"}}, overrides)


def test_the_command_line_has_the_bound_of_a_seed() -> None:
    (seed,) = nodes(SCHEMA, ["train", "seed"])
    bound = seed["exclusiveMaximum"]
    assert sample_options.seed(str(bound - 1)) == bound - 1
    with pytest.raises(argparse.ArgumentTypeError):
        sample_options.seed(str(bound))
    assert str(SMALLEST) in to_schema()
