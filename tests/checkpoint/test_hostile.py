"""A damaged or malicious checkpoint is refused in one line, before anything is allocated."""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.header import MAX_BRACKETS, MAX_HEADER
from charlm.checkpoint.read import find_checkpoint, open_checkpoint, read_meta
from charlm.checkpoint.write import save
from charlm.config import GPTConfig
from charlm.config.shapes import weight_shapes
from charlm.errors import BrokenModelError, CheckpointError
from charlm.sampling.engines import ENGINES
from tests.api.test_model import loaded
from tests.checkpoint import Tree, change_header, change_metadata, parts, set_in, write_parts
from tests.conftest import KINDS, Charlm, TinyRun
from tests.training.helpers import saved_model

PEAK = 4 << 20  # bytes that opening a small file may take


@pytest.fixture
def own(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """A copy of a checkpoint of an LSTM, which a test may change."""
    return copy_of(tiny_run("lstm"), tmp_path)


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copy(run / LAST, folder / LAST))


def refused(path: Path) -> str:
    """Open a checkpoint that must be refused; return the message without the path."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as failure, open_checkpoint(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < PEAK
    message = str(failure.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()  # and so on one line
    assert len(message) < len(str(path)) + 1000
    return message.removeprefix(f"{path}: ")


# --- the header ------------------------------------------------------------------------------

NAME = "model.head.bias"
OTHER = "model.head.weight"


def entry(**changed: Any) -> Callable[[Tree], Any]:
    return lambda header: header[NAME].update(changed)


def move(header: Tree, begin: int, end: int) -> None:
    header[NAME]["data_offsets"][0] += begin
    header[NAME]["data_offsets"][1] += end


ENTRIES: dict[str, Callable[[Tree], Any]] = {
    "no dtype": lambda header: header[NAME].pop("dtype"),
    "no offsets": entry(data_offsets=None),
    "three offsets": entry(data_offsets=[0, 1, 2]),
    "not an object": lambda header: header.update({NAME: 7}),
    "negative offsets": entry(data_offsets=[-160, 0]),
    "offsets from the end to the start": entry(data_offsets=[160, 0]),
    "huge offsets": entry(data_offsets=[0, 2**64]),
    "offsets that are not whole": entry(data_offsets=[0.0, 160.0]),
    "offsets that are too long": lambda header: move(header, 0, 4),
    "an overlap": lambda header: move(header, -4, -4),
    "a gap": lambda header: move(header, 4, 4),
    "the place of another": lambda header: header[NAME].update(header["model.embed.weight"]),
    "an unknown type": entry(dtype="F8_E4M3"),
    "a type with control characters": entry(dtype="\x1b[31m\n"),
    "a type that is a list": entry(dtype=["F32"]),
    "a huge shape": entry(shape=[2**62, 2**62]),
    "a shape of many numbers": entry(shape=[1] * 100_000),
    "a shape of long numbers": entry(shape=[10**4000] * 20),
    "a negative shape": entry(shape=[-1, -40]),
    "an empty tensor": entry(shape=[0, 2**62], data_offsets=[0, 0]),
    "a shape of truth": entry(shape=[True, 40]),
    "a shape that is text": entry(shape="40"),
    "unexpected tensor": lambda header: header.update({"model.\x1b]0;": header.pop(NAME)}),
    "a tensor missing": lambda header: header.update({"other": header.pop(NAME)}),
}


@pytest.mark.parametrize("what", ENTRIES)
def test_a_tensor_that_is_not_where_and_what_it_should_be_is_refused(what: str, own: Path) -> None:
    change_header(own, ENTRIES[what])
    assert refused(own).startswith("this checkpoint is damaged (")


def test_a_tensor_listed_twice_is_refused(own: Path) -> None:
    header, content = parts(own)
    again = json.dumps({NAME: header[NAME]})
    write_parts(own, f"{json.dumps(header)[:-1]}, {again[1:]}".encode(), content)
    assert "not a charlm checkpoint" in refused(own)


JUNK: dict[str, str] = {
    "a lone surrogate": '"\\ud800"',
    "a lone surrogate as a key": '{"\\udfff": 1}',
    "NaN": "NaN",
    "infinity": "[-Infinity]",
    "a number of 6,000 digits": "9" * 6000,
    "10,000 lists in each other": "[" * 10_000 + "]" * 10_000,
    "10,000 objects in each other": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "too many lists": "[" + "[]," * MAX_BRACKETS + "1]",
}


@pytest.mark.parametrize("where", ["header", "metadata", "config"])
@pytest.mark.parametrize("what", JUNK)
def test_json_that_charlm_never_writes_is_refused(what: str, where: str, own: Path) -> None:
    header, content = parts(own)
    metadata = header["__metadata__"]["charlm"]
    if where == "header":
        header_text = f'{json.dumps(header)[:-1]}, "junk": {JUNK[what]}}}'
    else:
        start = '"config":{' if where == "config" else "{"
        assert start in metadata
        metadata = metadata.replace(start, f'{start}"junk":{JUNK[what]},', 1)
        header_text = json.dumps(header | {"__metadata__": {"charlm": metadata}})
    write_parts(own, header_text.encode(), content)
    assert "not a charlm checkpoint" in refused(own)


def test_text_that_is_not_utf_8_is_refused(own: Path) -> None:
    raw = own.read_bytes()
    for wrong in (b"\xff", b"\xed\xa0\x80"):  # the second is a lone surrogate
        own.write_bytes(raw.replace(b"__meta", wrong + b"meta"[: 6 - len(wrong)], 1))
        assert "not a charlm checkpoint" in refused(own)


@pytest.mark.parametrize("length", [MAX_HEADER + 1, 2**32, 2**63, 2**64 - 1])
def test_a_header_that_is_too_long_is_not_read(length: int, own: Path) -> None:
    """The file is as long as it says, but has no blocks on the disk."""
    own.write_bytes(length.to_bytes(8, "little") + b"{" * 100)
    os.truncate(own, min(8 + length, 2**33))
    assert "not a charlm checkpoint" in refused(own)


EVERY = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))


def test_a_vocabulary_of_all_characters_fits_into_a_header(own: Path, tmp_path: Path) -> None:
    meta = read_meta(own)
    model = meta.config.model.model_copy(update={"hidden_size": 1, "n_layer": 1})
    config = meta.config.model_copy(update={"model": model})
    tensors = {f"model.{name}": torch.zeros(it) for name, it in weight_shapes(model, len(EVERY))}
    path = tmp_path / "all.safetensors"
    save(path, meta.model_copy(update={"config": config, "vocab": EVERY}), tensors)
    assert read_meta(path).vocab == EVERY


def test_the_largest_model_fits_into_a_header_too() -> None:
    """It has the most layers that a config may have, and an optimizer that needs three tensors for
    each."""
    limits = [it.le for it in GPTConfig.model_fields["n_layer"].metadata if hasattr(it, "le")]
    model = GPTConfig(n_layer=limits[0], n_embd=1024, bias=True, norm="layernorm")
    keys = ("", ":exp_avg", ":exp_avg_sq", ":step")
    entry = {"dtype": "BF16", "shape": [100_000] * 3, "data_offsets": [10**15] * 2}
    names = (f"optimizer.{name}{key}" for name, _ in weight_shapes(model, 7) for key in keys)
    entries = json.dumps(dict.fromkeys(names, entry))
    assert len(entries) + len(EVERY.encode()) + 100_000 < MAX_HEADER
    assert entries.count("[") + entries.count("{") + 1000 < MAX_BRACKETS


# --- the metadata ----------------------------------------------------------------------------

VALUES: list[tuple[str, Any]] = [
    ("format", True),
    ("format", -5),
    ("format", 10**400),
    ("vocab", "\x1b"),
    ("vocab", 7),
    ("parameters", -1),
    ("parameters", 10**30),
    ("threads", 0),
    ("device", "cpu" * 1000),
    ("precision", "\x1b\n"),
    ("corpus.chars", -1),
    ("corpus.sha256", "0" * 10_000),
    ("log_sizes", {"metrics.jsonl": -1}),
    ("log_sizes", {str(i): 1 for i in range(2000)}),
    ("versions", {"\x1b\n" * 1000: "1"}),
    ("progress.step", -1),
    ("progress.step", 1.5),
    ("progress.step", 10**400),
    ("progress.elapsed_s", -1.0),
    ("progress.elapsed_s", 1e300),
    ("progress.loss_sum", None),
    ("progress.best_loss", "inf"),
    ("progress.best_loss", 1e308),
    ("progress.best_step", None),  # but a best loss
    ("progress.scaler", {"scale": 0.0}),
    ("progress.scaler", {"growth_interval": -1}),
    ("progress.scaler", {"scale": "nan"}),
    ("config.name", "../../x"),
    ("config.name", "a" * 1_000_000),
    ("config.model.kind", "\x1b\n" * 1000),
    ("config.model.\x1b\n", 1),
    ("config.train.batch_size", 10**12),
    ("config.sample.temperature", -1),
]


@pytest.mark.parametrize(("key", "value"), VALUES, ids=lambda it: f"{it!r:.30}")
def test_values_that_make_no_sense_are_refused(key: str, value: Any, own: Path) -> None:
    change_metadata(own, lambda metadata: set_in(metadata, key, value))
    refused(own)


SIZES: dict[str, list[tuple[str, Any]]] = {
    "rnn": [("n_layer", 1000), ("n_layer", 10**9), ("n_layer", 1)],
    "gru": [("hidden_size", 20_000), ("hidden_size", 10**18), ("hidden_size", 15)],
    "lstm": [("n_layer", 1000), ("hidden_size", 20_000), ("input", "one_hot"), ("kind", "gru")],
    "mlp": [("n_layer", 1000), ("context", 6), ("n_embd", 20_000), ("input", "one_hot")],
    "gpt": [
        *(("n_layer", 1000), ("n_embd", 20_000), ("mlp", "swiglu"), ("bias", True)),
        *(("norm", "layernorm"), ("tie_weights", True), ("position", "learned")),
    ],
}


@pytest.mark.parametrize(("kind", "key", "value"), [(k, *it) for k, v in SIZES.items() for it in v])
def test_a_config_that_needs_other_tensors_is_refused_before_anything_is_allocated(
    kind: str, key: str, value: Any, tiny_run: TinyRun, tmp_path: Path
) -> None:
    path = copy_of(tiny_run(kind), tmp_path)
    change_metadata(path, lambda metadata: set_in(metadata, f"config.model.{key}", value))
    if (key, value) == ("norm", "layernorm"):  # without biases it needs the same tensors
        read_meta(path)
    else:
        refused(path)


@pytest.mark.parametrize("size", [8192, 1 << 16])
def test_a_learned_position_of_a_long_context_is_refused(
    size: int, tiny_run: TinyRun, tmp_path: Path
) -> None:
    path = copy_of(tiny_run("gpt"), tmp_path)
    for key, value in (
        *(("config.model.position", "learned"), ("config.model.context", size)),
        ("config.train.seq_len", size),
    ):
        change_metadata(path, functools.partial(set_in, key=key, value=value))
    assert "no tensor model.position.table" in refused(path)


def test_every_verb_refuses_it(own: Path, charlm: Charlm, tiny_text: Path, tmp_path: Path) -> None:
    change_metadata(own, lambda metadata: set_in(metadata, "config.model.hidden_size", 20_000))
    (tmp_path / "lstm").mkdir()
    own = own.rename(tmp_path / "lstm" / LAST)
    data = ("--data", tiny_text)
    for verb in (
        *(("info", own), ("info", "--json", own), ("eval", own, *data)),
        *(("sample", "--engine", engine, own) for engine in ENGINES),
        ("inspect", own, "--text", tiny_text),
        ("train", "--resume", "--name", "lstm", "--out", tmp_path),
        ("train", "--init-from", own, *data, "--name", "new", "--out", tmp_path),
    ):
        result = charlm(*verb)
        assert result.status == 2, verb
        assert result.out == ""
        (line,) = result.err.splitlines()
        assert "this checkpoint is damaged (model.embed.weight is (" in line, verb


def test_a_vocabulary_that_lacks_a_character_of_the_text_is_found(
    own: Path, charlm: Charlm, tmp_path: Path
) -> None:
    change_metadata(own, lambda metadata: metadata.update(vocab=metadata["vocab"][:-1] + "\u2603"))
    (tmp_path / "lstm").mkdir()
    own.rename(tmp_path / "lstm" / LAST)
    result = charlm("train", "--resume", "--name", "lstm", "--out", tmp_path)
    assert result.status == 2
    assert "its vocabulary is not that of its text" in result.err
    result = charlm("sample", tmp_path / "lstm", "--length", "5", "--novelty")
    assert result.status == 0
    assert "novelty cannot be measured" in result.err
    assert "its vocabulary is not that of its text" in result.err


# --- weights that are not finite ---------------------------------------------------------------


HUGE = 3e38  # products overflow


def fill(path: Path, value: float, has_it: Callable[[str], bool]) -> None:
    """Set all weights of the tensors whose names pass `has_it` to a value."""
    header, content = parts(path)
    changed = bytearray(content)
    for name in header:
        if name.startswith("model.") and has_it(name):
            begin, end = header[name]["data_offsets"]
            changed[begin:end] = np.full((end - begin) // 4, value, np.float32).tobytes()
    write_parts(path, header, bytes(changed))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, HUGE])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_finite_are_reported_without_warnings(
    kind: str, engine: str, value: float, tiny_run: TinyRun, tmp_path: Path
) -> None:
    """A warning is an error in tests. Weights that are finite, but huge, may give outputs that are
    finite."""
    path = copy_of(tiny_run(kind), tmp_path)
    for whole in (False, True):
        fill(path, value, lambda name: whole or name == "model.head.weight")  # noqa: B023
        model = loaded(path, engine)
        for use in (functools.partial(model.sample, length=5), model.score):
            with suppress(BrokenModelError) if value == HUGE else pytest.raises(BrokenModelError):
                use("The old king")


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-39, HUGE, math.nan])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_weights_are_inspected_or_reported_without_warnings(
    kind: str, value: float, tiny_run: TinyRun, tmp_path: Path, charlm: Charlm
) -> None:
    path = copy_of(tiny_run(kind), tmp_path)
    for part in ("qkv", "rnn", "layers", "model"):  # queries, keys and values; networks; all
        fill(path, value, lambda name: part in name)  # noqa: B023
        result = charlm("inspect", path, "--length", "50", "--force", "--device", "cpu")
        assert result.status in (0, 2), result.err
        assert result.err.count("\n") == (result.status == 2)


# --- what is not a regular file ------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / BEST
    os.mkfifo(pipe)
    assert "not a regular file" in refused(pipe)
    with pytest.raises(CheckpointError, match="no best"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero", "/dev/tty"])
def test_a_device_is_refused_at_once(device: str) -> None:
    if not Path(device).exists():
        pytest.skip(f"there is no {device}")
    refused(Path(device))


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert "Is a directory" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "missing")


def test_a_link_to_nothing_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LAST).symlink_to("gone")
    with pytest.raises(CheckpointError, match="no run under"):
        find_checkpoint(None, tmp_path)


def test_a_valid_file_is_read(own: Path) -> None:
    """The helpers of these tests keep a file as it is, except for what a test changes."""
    before = saved_model(own).state_dict()
    change_header(own, lambda header: header.update({}))
    change_metadata(own, lambda metadata: metadata.update({}))
    after = saved_model(own).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
