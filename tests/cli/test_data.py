"""Texts on the command line: training on any text, `data stats`, well-known texts."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from charlm.config.files import parse_config
from charlm.data import library
from tests.conftest import Charlm
from tests.warm import running

SMALL = (
    *("--set", "model.hidden_size=8", "--set", "train.max_epochs=null"),
    *("--set", "train.max_steps=12", "--set", "eval.sample_every=null", "--device", "cpu"),
    *("--set", "train.kernels=off"),  # there may be no compiler
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- training on a text of the user ----------------------------------------------------------


def test_training_needs_no_config(here: Path, charlm: Charlm) -> None:
    (here / "my book.txt").write_text("It was a dark and stormy night. " * 200, encoding="utf-8")
    assert charlm("train", "--data", "my book.txt", *SMALL).status == 0
    settings = yaml.safe_load((here / "checkpoints/my-book/config.yaml").read_text("utf-8"))
    assert settings["data"]["path"] == "my book.txt"
    again = charlm("train", "--data", "my book.txt", *SMALL)
    assert again.status == 2
    assert "checkpoints/my-book: this run exists and is not overwritten" in again.err
    assert charlm("train", "--resume", "--set", "train.max_steps=14", "--device", "cpu").status == 0
    assert charlm("sample", "--length", "5", "--device", "cpu").status == 0


def test_training_on_a_hundred_bytes_prints_a_note(here: Path, charlm: Charlm) -> None:
    (here / "small.txt").write_text("abcdefghij" * 10, encoding="utf-8")
    result = charlm("train", "--data", "small.txt", *SMALL, "--batch-size", "2")
    assert result.status == 0
    assert "train.batch_size is 1, not 2" in result.err


def test_files_and_folders_replace_the_text_of_the_config(
    here: Path, charlm: Charlm, tiny_text: Path
) -> None:
    (here / "folder").mkdir()
    for name in ("b.c", "a.c", "a.h"):
        (here / "folder" / name).write_text(f"{name} " * 300, encoding="utf-8")
    config = here / "mine.yaml"
    config.write_text(f"data: {{path: {tiny_text}, val_fraction: 0.2}}\n", encoding="utf-8")
    command = ("train", "--config", config, "--data", "folder", tiny_text)
    result = charlm(*command, "--set", "data.include=*.c", *SMALL)
    assert result.status == 0
    own = tiny_text.read_text("utf-8")
    assert f"{2 * 1200 + len(own) + 2:,} characters" in result.out
    settings = yaml.safe_load((here / "checkpoints/mine/config.yaml").read_text("utf-8"))
    assert settings["data"]["path"] == ["folder", str(tiny_text)]
    assert settings["data"]["val_fraction"] == 0.2


def run(*arguments: str, piped: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    with running(*arguments, stdin=piped) as process:
        return process.wait(120)


def test_a_text_from_standard_input_is_trained_on_and_resumed(here: Path, tiny_text: Path) -> None:
    ended = run("train", "--data", "-", "--name", "piped", *SMALL, piped=tiny_text.read_bytes())
    assert ended.returncode == 0
    assert re.fullmatch(rb"charlm: note: charlm would choose [^\n]*\n", ended.stderr)
    resumed = run("train", "--resume", "--set", "train.max_steps=15", "--device", "cpu")
    assert b"finished at step 15" in resumed.stdout
    scored = run("eval", "--json", "--device", "cpu")
    assert json.loads(scored.stdout)["chars"] > 1000


@pytest.mark.parametrize("paths", [("-",), ("own.txt", "-")])
def test_standard_input_is_read_whole_in_any_order_and_without_a_cache(
    here: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch, paths: tuple[str, ...]
) -> None:
    (here / "own.txt").write_text("my own " * 100, encoding="utf-8")
    monkeypatch.setenv("CHARLM_CACHE", str(here / "own.txt"))  # not a folder: nothing is cached
    command = ("train", "--data", *paths, "--name", "piped", *SMALL)
    ended = run(*command, piped=tiny_text.read_bytes())
    assert ended.returncode == 0, ended.stderr
    whole = len(tiny_text.read_text("utf-8")) + (len(paths) - 1) * 701
    assert f" {whole:,} characters ".encode() in ended.stdout


def test_a_named_pipe_is_read(here: Path, charlm: Charlm, tiny_text: Path) -> None:
    os.mkfifo(here / "pipe")
    writer = threading.Thread(target=lambda: (here / "pipe").write_bytes(tiny_text.read_bytes()))
    writer.start()
    result = charlm("train", "--data", "pipe", *SMALL)
    writer.join()
    assert result.status == 0
    assert f" {len(tiny_text.read_text('utf-8')):,} characters " in result.out


def test_bytes_that_are_not_text_are_learned_and_sampled(here: Path) -> None:
    (here / "data.bin").write_bytes(bytes(range(128, 256)) * 20)
    ended = run("train", "--data", "data.bin", "--set", "data.unit=byte", *SMALL)
    assert ended.returncode == 0
    assert re.fullmatch(rb"charlm: note: charlm would choose [^\n]*\n", ended.stderr)
    options = ("--length", "50", "--seed", "1", "--device", "cpu")
    sampled = run("sample", *options).stdout
    assert len(sampled) == 50
    with pytest.raises(UnicodeDecodeError):
        sampled.decode()
    assert sampled == run("sample", *options).stdout


def test_a_model_of_a_list_samples_documents(here: Path, charlm: Charlm) -> None:
    names = [first + second for first in ("an", "be", "cla", "do") for second in ("na", "ra", "la")]
    (here / "names.txt").write_text("\n".join(names * 20), encoding="utf-8")
    items = ("--set", "data.documents=lines", "--set", "train.batches=items")
    assert charlm("train", "--data", "names.txt", *items, *SMALL).status == 0
    sampled = charlm("sample", "--seed", "1", "--device", "cpu").out
    assert sampled.count("\n") == 10
    assert sampled.endswith("\n")
    two = charlm("sample", "--num-samples", "2", "--prompt", "an", "--device", "cpu").out
    assert [line[:2] for line in two.splitlines()] == ["an", "an"]
    assert json.loads(charlm("eval", "--json", "--device", "cpu").out)["protocol"] == "items"


# --- data stats ------------------------------------------------------------------------------


def test_the_json_of_stats_has_all_keys(charlm: Charlm, tiny_text: Path) -> None:
    result = charlm("data", "stats", tiny_text, "--json")
    assert (result.status, result.err) == (0, "")
    found = json.loads(result.out)
    assert set(found) == {
        *("source", "sha256", "unit", "chars", "utf8_bytes", "lines", "parts", "distinct"),
        *("most_frequent", "oddities", "yardsticks", "choices", "suggestion", "notices"),
    }
    text = tiny_text.read_text("utf-8")
    assert (found["chars"], found["lines"]) == (len(text), text.count("\n"))
    assert set(found["yardsticks"]) == {
        *("train_chars", "val_chars", "entropy", "gzip", "bzip2", "xz", "ngram")
    }
    assert parse_config(found["suggestion"]).data.path == (str(tiny_text),)


def test_stats_list_odd_characters_and_end_with_a_config(here: Path, charlm: Charlm) -> None:
    odd = "plain and \ufffd odd\r\n\u200b\x07" * 50
    (here / "odd.txt").write_bytes(odd.encode())
    result = charlm("data", "stats", "odd.txt", "--set", "data.separator=x")
    assert (result.status, result.err) == (0, "")
    for words in ("950 characters", "replacement", "CRLF", "data.newlines=lf", "invisible"):
        assert words in result.out
    assert not {"\x07", "\u200b", "\r"} & set(result.out)  # reported, but not printed
    config = result.out.partition("a run of 3 minutes:\n\n")[2]
    assert parse_config(yaml.safe_load(config)).data.separator == "x"


# --- well-known texts ------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of one text; yields its URL."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "text.txt").write_text("well-known " * 300, encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as it:
        threading.Thread(target=it.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{it.server_port}/text.txt"
        it.shutdown()


def test_a_text_is_fetched_listed_and_trained_on_by_its_name(
    here: Path, charlm: Charlm, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(here / "cache"))
    monkeypatch.delenv("CHARLM_DATA", raising=False)
    known = library.Known(file="text.txt", about="a text", url=server)
    monkeypatch.setitem(library.KNOWN, "served", known)
    before = charlm("train", "--data", "served", *SMALL)
    assert before.status == 2
    assert "get it with: charlm data fetch served" in before.err
    fetched = charlm("data", "fetch", "served")
    assert (fetched.status, fetched.err) == (0, "")
    assert str(here / "cache" / "corpora" / "text.txt") in fetched.out
    (row,) = (line for line in charlm("data", "list").out.splitlines() if "served" in line)
    assert row.split()[1] == "yes"
    assert charlm("train", "--data", "served", *SMALL).status == 0


def test_every_known_text_is_listed_with_its_description(charlm: Charlm) -> None:
    result = charlm("data", "list")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    for name, known in library.KNOWN.items():
        (row,) = (line for line in lines if line.startswith(f"{name} "))
        assert row.endswith(known.about)
        checked = {"the file": " yes ", "as published": " published ", "unknown": " no "}
        assert checked[known.checked] in row


def test_without_a_network_the_message_says_where_to_put_the_file(
    here: Path, charlm: Charlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(here / "cache"))
    nowhere = library.Known(file="text.txt", about="a text", url="http://127.0.0.1:1/text.txt")
    monkeypatch.setitem(library.KNOWN, "nowhere", nowhere)
    result = charlm("data", "fetch", "nowhere")
    assert result.status == 2
    (line,) = result.err.splitlines()
    assert f"put the file at {here / 'cache' / 'corpora' / 'text.txt'} by hand" in line
