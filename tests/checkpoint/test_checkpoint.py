"""A checkpoint: what is saved is read back, and the file on the disk is always complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from charlm.checkpoint import read
from charlm.checkpoint.format import BEST, FORMAT, LAST, Meta
from charlm.checkpoint.read import find_checkpoint, open_checkpoint, read_meta
from charlm.checkpoint.write import save
from charlm.errors import CheckpointError
from tests.training.helpers import (
    KINDS,
    make_config,
    new_run,
    resume,
    saved_model,
    saved_weights,
    start,
)


@pytest.fixture(scope="module")
def run(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; do not write to it."""
    config = make_config(tiny_text, "lstm", "train.grad_accum=2", "train.optimizer.kind=muon")
    return new_run(config, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of its last checkpoint, which a test may damage."""
    return Path(shutil.copy(run / LAST, tmp_path / LAST))


TENSORS = {  # besides the weights
    "optimizer.a": torch.arange(6.0).reshape(2, 3).t(),  # not contiguous
    "optimizer.b": torch.tensor(3.5, dtype=torch.float64),
    "optimizer.a:step": torch.tensor(2, dtype=torch.int64),
    "rng.cpu": torch.arange(5, dtype=torch.uint8),
    "state.0.0": torch.full((1, 2), torch.nan, dtype=torch.bfloat16),
    "state.0.1": torch.full((3, 1), -torch.inf, dtype=torch.float16),
}


def changed(meta: Meta, step: int) -> Meta:
    progress = meta.progress.model_copy(update={"step": step, "loss_sum": 0.1 + 0.2})
    vocab = "é\U0001f40d\x00" + meta.vocab[3:]
    return meta.model_copy(update={"progress": progress, "vocab": vocab})


# --- round trip ------------------------------------------------------------------------------


def test_what_is_saved_is_read_back(run: Path, tmp_path: Path) -> None:
    path, meta = tmp_path / "x.safetensors", changed(read_meta(run / LAST), 7)
    saved = TENSORS | {f"model.{name}": it for name, it in saved_weights(run / LAST).items()}
    save(path, meta, saved)
    assert read_meta(path) == meta
    assert read_meta(path).vocabulary.chars == meta.vocab
    theirs = load_file(path)  # a second way to read the same file
    assert theirs.keys() == saved.keys()
    with open_checkpoint(path) as checkpoint:
        assert not checkpoint.tensors("state.1.")
        for prefix in ("model.", "optimizer.", "rng.", "state.0."):
            found = checkpoint.tensors(prefix)
            assert {prefix + name for name in found} == {
                it for it in saved if it.startswith(prefix)
            }
            for name, tensor in found.items():
                for expected in (saved[prefix + name], theirs[prefix + name]):
                    assert tensor.dtype == expected.dtype
                    assert tensor.shape == expected.shape
                    assert bits_of(tensor) == bits_of(expected)


def bits_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.fixture(params=[0, 1 << 20], ids=["mapped", "read"])
def map_or_read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Map the weights of every file, or of none."""
    monkeypatch.setattr(read, "MAP_FROM", request.param)


@pytest.mark.usefixtures("map_or_read")
@pytest.mark.parametrize("odd", [False, True])
def test_weights_are_those_that_safetensors_reads(odd: bool, own: Path, run: Path) -> None:
    """Also where the header ends at an odd byte, as safetensors allows."""
    expected = saved_weights(run / LAST)
    if odd:
        raw = own.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        own.write_bytes(
            (length + 1).to_bytes(8, "little") + raw[8 : 8 + length] + b" " + raw[8 + length :]
        )
        assert all(map(torch.equal, saved_weights(own).values(), expected.values()))
    with open_checkpoint(own) as checkpoint:
        weights = checkpoint.weights()
    assert weights.keys() == expected.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, expected[name].numpy())
        assert array.flags.aligned
        assert not array.flags.writeable


@pytest.mark.usefixtures("map_or_read")
def test_everything_is_read_from_the_file_that_was_opened(own: Path, run: Path) -> None:
    expected = load_file(own)
    with open_checkpoint(own) as checkpoint:
        zeros = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
        save(own, changed(checkpoint.meta, 99), zeros)  # renames a new file over the old one
        assert read_meta(own).progress.step == 99
        assert checkpoint.meta == read_meta(run / LAST)
        weights, tensors = checkpoint.weights(), checkpoint.tensors("")
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, expected[f"model.{name}"].numpy())


def test_small_weights_do_not_need_the_file_any_more(own: Path, run: Path) -> None:
    """A mapped file that is cut short would end the process."""
    expected = saved_weights(run / LAST)
    with open_checkpoint(own) as checkpoint:
        weights = checkpoint.weights()
    os.truncate(own, 0)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, expected[name].numpy())


def test_a_file_that_is_cut_short_while_it_is_read_is_reported(own: Path) -> None:
    with open_checkpoint(own) as checkpoint:
        os.truncate(own, 100)
        for load in (checkpoint.weights, lambda: checkpoint.tensors("model.")):
            with pytest.raises(CheckpointError, match="it was cut short while it was read"):
                load()


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_a_plain_safetensors_file(
    kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, kind, "train.max_steps=5")
    ready = start(config, tmp_path, "cpu")
    ready.trainer([], lambda: False).train()
    tensors = load_file(ready.run.folder / LAST)
    groups = {"model", "optimizer", "rng"} | (set() if kind == "gpt" else {"state"})
    assert {name.partition(".")[0] for name in tensors} == groups
    for name, parameter in ready.model.named_parameters():
        assert torch.equal(tensors[f"model.{name}"], parameter)
    with safe_open(ready.run.folder / LAST, framework="pt") as file:
        assert file.metadata().keys() == {"charlm"}
        metadata = json.loads(file.metadata()["charlm"])
    assert metadata["format"] == FORMAT
    assert metadata["config"] == config.model_dump(mode="json")
    assert metadata["vocab"] == "".join(sorted(set(tiny_text.read_text(encoding="utf-8"))))
    assert metadata["progress"]["step"] == 5
    assert metadata["parameters"] == sum(p.numel() for p in ready.model.parameters())
    assert metadata["corpus"]["sha256"] == ready.run.corpus.sha256
    assert set(metadata["versions"]) == {"charlm", "python", "torch", "numpy", "cpu"}


def test_reading_the_metadata_does_not_read_the_tensors(own: Path) -> None:
    raw = bytearray(own.read_bytes())
    header = int.from_bytes(raw[:8], "little")
    raw[8 + header :] = b"\xff" * (len(raw) - 8 - header)
    own.write_bytes(raw)
    assert read_meta(own).progress.step == 12


# --- writing: complete or not at all ---------------------------------------------------------


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


CRASHES: dict[str, tuple[object, str, Callable[..., None]]] = {
    "fsync": (os, "fsync", no_space),
    "rename": (Path, "replace", no_space),
    "open": (os, "open", no_space),
}


@pytest.mark.parametrize("crash", CRASHES)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    crash: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, meta = own.read_bytes(), read_meta(own)
    with monkeypatch.context() as patched:
        patched.setattr(*CRASHES[crash])
        with pytest.raises(CheckpointError) as failure:
            save(own, changed(meta, 99), TENSORS)
    for part in (str(own), "cannot write: No space left on device", "files saved before"):
        assert part in str(failure.value)
    assert own.read_bytes() == before
    assert list(own.parent.iterdir()) == [own]


def test_a_power_cut_while_writing_leaves_the_old_file(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCutError(BaseException):
        pass

    def cut(*_: object) -> None:
        assert read_meta(own) == meta  # the old file is still complete
        raise PowerCutError

    before, meta = own.read_bytes(), read_meta(own)
    monkeypatch.setattr(os, "fsync", cut)
    with pytest.raises(PowerCutError):
        save(own, changed(meta, 99), TENSORS)
    assert own.read_bytes() == before


def test_the_file_is_flushed_before_it_is_renamed_and_its_folder_afterwards(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    flush, replace = os.fsync, Path.replace

    def spy_flush(descriptor: int) -> None:
        events.append("flush folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "flush")  # noqa: PTH112
        flush(descriptor)

    def spy_replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", spy_flush)
    monkeypatch.setattr(Path, "replace", spy_replace)
    save(own, read_meta(own), TENSORS)
    assert events[:2] == ["flush", "rename"]
    if os.name == "posix" and Path("/proc/self/fd").exists():
        assert events == ["flush", "rename", "flush folder"]


def test_a_full_disk_stops_a_run_with_one_line_and_last_still_loads(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tiny_text, "rnn")
    folder = new_run(config, tmp_path, stop_at=5)
    ready = resume(config, folder, "cpu")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match="No space left on device"):
        ready.trainer([], lambda: False).train()
    assert read_meta(folder / LAST).progress.step == 5
    saved_model(folder / LAST)
    assert not list(folder.glob("*.tmp"))


# --- damaged and foreign files ---------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_checkpoint_is_reported(share: float, own: Path) -> None:
    raw = own.read_bytes()
    own.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(CheckpointError, match=f"^{own}: .*(only the beginning|damaged)"):
        read_meta(own)


def with_header(path: Path, header: object) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded)


@pytest.mark.parametrize(
    "header",
    [[], {}, {"__metadata__": None}, {"__metadata__": {"format": "pt"}}]
    + [{"__metadata__": {"charlm": text}} for text in ("", "[]", "7", "{}", '{"format": null}')],
    ids=str,
)
def test_a_foreign_file_is_not_a_checkpoint(header: object, own: Path) -> None:
    with_header(own, header)
    with pytest.raises(CheckpointError, match=f"^{own}: not a charlm checkpoint"):
        read_meta(own)


def test_a_text_file_is_not_a_checkpoint(own: Path) -> None:
    own.write_text("ROMEO:\n" * 100)
    with pytest.raises(CheckpointError, match="not a charlm checkpoint"):
        read_meta(own)


def test_a_newer_format_asks_for_an_upgrade(own: Path) -> None:
    with_header(own, {"__metadata__": {"charlm": json.dumps({"format": FORMAT + 1})}})
    with pytest.raises(CheckpointError, match=f"format {FORMAT + 1}.*upgrade charlm"):
        read_meta(own)


def test_invalid_metadata_is_reported_with_its_key(own: Path, run: Path) -> None:
    metadata = read_meta(run / LAST).model_dump(mode="json")
    metadata["progress"]["step"] = "many"
    with_header(own, {"__metadata__": {"charlm": json.dumps(metadata)}})
    with pytest.raises(CheckpointError, match=r"cannot read .*: progress\.step"):
        read_meta(own)


# --- finding a checkpoint --------------------------------------------------------------------


def test_a_run_folder_means_its_best_else_its_last(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"no {BEST} and no {LAST}"):
        find_checkpoint(tmp_path)
    (tmp_path / LAST).touch()
    assert find_checkpoint(tmp_path) == tmp_path / LAST
    (tmp_path / BEST).touch()
    assert find_checkpoint(tmp_path) == tmp_path / BEST
    assert find_checkpoint(tmp_path / LAST) == tmp_path / LAST
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "other")


def test_without_a_path_the_newest_run_is_used(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run under"):
        find_checkpoint(None, tmp_path)
    for age, name in enumerate(("newest", "older", "oldest")):
        (tmp_path / name).mkdir()
        (tmp_path / name / LAST).touch()
        os.utime(tmp_path / name / LAST, (1e9 - age, 1e9 - age))
    assert find_checkpoint(None, tmp_path) == tmp_path / "newest" / LAST
