"""`charlm runs` and `charlm compare`."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import read_meta
from charlm.cli import columns
from charlm.files import locked
from tests.checkpoint import change_metadata
from tests.conftest import Charlm, TinyConfig, TinyRun, train_with


@pytest.fixture
def folder(tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `checkpoints` with four runs, the newest one a GPT, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for age, kind in enumerate(("gpt", "lstm", "gru", "rnn")):
        run = tmp_path / "checkpoints" / kind
        shutil.copytree(tiny_run(kind), run)
        saved = time.time() - age * 7000
        os.utime(run / LAST, (saved, saved))
    return tmp_path / "checkpoints"


def test_runs_are_listed(charlm: Charlm, folder: Path) -> None:
    (folder / "no run").mkdir()
    (folder / "file").touch()
    result = charlm("runs")
    assert (result.status, result.err) == (0, "")
    heading, *lines = result.out.splitlines()
    assert heading.split() == ["NAME", "MODEL", "TEXT", "STEPS", "NATS/CHAR", "AGE", "STATE"]
    assert [line.split()[0] for line in lines] == ["gpt", "lstm", "gru", "rnn"]
    progress = read_meta(folder / "gru" / LAST).progress
    assert f"{progress.best_loss:.4f}  3 h" in lines[2]
    assert lines[2].endswith("  finished")
    assert "gru, 2 layers of 16" in lines[2]
    assert [line.split()[-2] for line in lines] == ["now", "h", "h", "h"]
    alone = charlm("runs", "checkpoints/gpt").out.splitlines()
    assert [line.split() for line in alone] == [heading.split(), lines[0].split()]


def test_the_list_as_json(charlm: Charlm, folder: Path) -> None:
    runs = json.loads(charlm("runs", "--json").out)
    meta = read_meta(folder / "lstm" / LAST)
    assert [run["name"] for run in runs] == ["gpt", "lstm", "gru", "rnn"]
    assert runs[1] | {"saved": 0} == {
        "folder": "checkpoints/lstm",
        "name": "lstm",
        "model": "lstm, 2 layers of 16",
        "parameters": meta.parameters,
        "text": meta.corpus.source,
        "chars": meta.corpus.chars,
        "step": 6,
        "seconds": meta.progress.elapsed_s,
        "best_loss": meta.progress.best_loss,
        "best_step": meta.progress.best_step,
        "saved": 0,
        "state": "finished",
        "best_bits_per_char": (meta.progress.best_loss or 0) / math.log(2),
    }


def test_states(charlm: Charlm, folder: Path) -> None:
    unfinished = {"finished": False, "best_loss": None, "best_step": None}
    change_metadata(folder / "gru" / LAST, lambda meta: meta["progress"].update(unfinished))
    with locked(folder / "rnn", wait=False):
        runs = {run["name"]: run for run in json.loads(charlm("runs", "--json").out)}
    states = {name: run["state"] for name, run in runs.items()}
    expected = {"gpt": "finished", "lstm": "finished", "gru": "stopped", "rnn": "running"}
    assert states == expected
    assert runs["gru"]["best_bits_per_char"] is None
    assert "   -  " in next(line for line in charlm("runs").out.splitlines() if "gru" in line)


def test_broken_runs_are_left_out_with_a_note(charlm: Charlm, folder: Path) -> None:
    (folder / "gru" / LAST).write_bytes(b"no checkpoint")
    (folder / "rnn" / LAST).unlink()  # its best checkpoint is left
    (folder / "lstm" / LAST).unlink()
    os.mkfifo(folder / "lstm" / LAST)
    (folder / "lstm" / BEST).unlink()
    (folder / "loop").symlink_to("loop")
    result = charlm("runs")
    assert result.status == 0
    assert {line.split()[0] for line in result.out.splitlines()[1:]} == {"gpt", "rnn"}
    (note,) = result.err.splitlines()
    expected = "charlm: note: left out: checkpoints/gru/last.safetensors: not a charlm checkpoint"
    assert note.startswith(expected)


def test_no_runs(charlm: Charlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = charlm("runs")
    assert (missing.status, missing.out) == (2, "")
    assert missing.err.startswith("charlm: checkpoints: no such folder; train a run with charlm")
    (tmp_path / "checkpoints").mkdir()
    result = charlm("runs")
    empty = (0, "", "charlm: note: checkpoints: no runs in this folder\n")
    assert result == empty
    assert charlm("runs", "--json") == (0, "[]\n", "")


# --- comparing --------------------------------------------------------------------------------


def table(out: str) -> dict[str, list[str]]:
    rows = [line.split("  ") for line in out.splitlines()]
    return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def test_what_differs_is_shown(charlm: Charlm, folder: Path) -> None:
    result = charlm("compare", "checkpoints/lstm", "checkpoints/gpt")
    assert (result.status, result.err) == (0, "")
    rows = table(result.out)
    assert rows[""] == ["lstm", "gpt"]
    assert rows["model.kind"] == ["lstm", "gpt"]
    assert rows["model.hidden_size"] == ["16", "-"]
    assert rows["model.context"] == ["-", "16"]
    assert rows["train.batches"] == ["streams", "windows"]
    assert "train.batch_size" not in rows
    metas = [read_meta(folder / name / LAST) for name in ("lstm", "gpt")]
    losses = [meta.progress.best_loss or 0 for meta in metas]
    assert rows["val nats/char"] == [f"{loss:.4f}" for loss in losses]
    assert rows["val bits/char"] == [f"{loss / math.log(2):.4f}" for loss in losses]
    assert rows["parameters"] == [f"{meta.parameters:,}" for meta in metas]
    assert (rows["steps"], rows["state"]) == (["6", "6"], ["finished", "finished"])


def test_the_comparison_as_json(charlm: Charlm, folder: Path) -> None:
    names = ("rnn", "gru", "lstm")
    out = charlm("compare", *names, "--json").out
    found = json.loads(out)
    assert [run["name"] for run in found["runs"]] == [*names]
    assert found["settings"] == {"model.kind": [*names]}
    assert found["incomparable"] == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data": {"val_fraction": 0.2, "test_fraction": 0.05}}, "data.val_fraction differs"),
        ({"eval": {"protocol": "windows"}}, "eval.protocol differs"),
        ({"eval": {"max_chars": 99}}, "eval.max_chars differs"),
        ({"eval": {"window": 5}}, ""),  # the protocol is stream
        ({"eval": {"every": 2}}, ""),
    ],
)
def test_losses_that_cannot_be_compared(
    changes: dict[str, Any], reason: str, charlm: Charlm, folder: Path, tiny_config: TinyConfig
) -> None:
    raw = tiny_config("rnn") | {"name": "other"}
    for group, values in changes.items():
        raw[group] = raw[group] | values
    train_with(raw, folder)
    result = charlm("compare", folder / "rnn", folder / "other")
    note = f"charlm: note: these losses cannot be compared: {reason}\n" if reason else ""
    assert (result.status, result.err) == (0, note)


def test_another_text_cannot_be_compared(
    charlm: Charlm, folder: Path, tiny_config: TinyConfig, tiny_text: Path
) -> None:
    other = folder.parent / "other.txt"
    other.write_text(tiny_text.read_text("utf-8") + "#", encoding="utf-8")
    raw = tiny_config("rnn") | {"name": "other"}
    raw["data"] = raw["data"] | {"path": str(other)}
    train_with(raw, folder)
    result = charlm("compare", folder / "rnn", folder / "other")
    reasons = "the texts differ; the vocabularies differ"
    assert result.err == f"charlm: note: these losses cannot be compared: {reasons}\n"


def test_a_checkpoint_file_stands_for_its_step(
    charlm: Charlm, folder: Path, tiny_config: TinyConfig
) -> None:
    raw = tiny_config("rnn") | {"name": "kept"}
    raw["train"] = raw["train"] | {"keep_every": 2}
    train_with(raw, folder)
    files = [folder / "kept" / name for name in ("step-00000002.safetensors", LAST)]
    rows = table(charlm("compare", *files).out)
    assert rows["steps"] == ["2", "6"]
    assert len(set(rows[""])) == 1
    assert rows["val nats/char"][0] == "-"


def test_broken_runs_are_not_compared(charlm: Charlm, folder: Path) -> None:
    (folder / "gru" / LAST).write_bytes(b"no checkpoint")
    names = ("rnn", "gru", "missing", "gpt")
    result = charlm("compare", *(f"checkpoints/{name}" for name in names))
    assert result.status == 0
    assert table(result.out)[""] == ["rnn", "gpt"]
    assert [line[:33] for line in result.err.splitlines()] == [
        "charlm: note: left out: checkpoints/gru/last.safetensors"[:33],
        "charlm: note: left out: checkpoints/missing: no such"[:33],
    ]
    result = charlm("compare", "checkpoints/rnn", "checkpoints/gru")
    assert result.status == 2
    assert result.err.splitlines()[-1] == "charlm: compare: give two or more runs"


# --- columns ----------------------------------------------------------------------------------


def test_columns_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("NAME", "N"), ("a name that is long", "1,000"), ("名前", "5"), ("x\x1b\n", "-")]
    assert columns.columns(rows, right=(1,)) == [
        "NAME                     N",
        "a name that is long  1,000",
        "名前                     5",
        "x\\x1b\\n                  -",
    ]
    monkeypatch.setattr(columns, "_terminal_width", lambda: 17)
    assert columns.columns(rows, right=(1,)) == [
        "NAME            N",
        "a name th…  1,000",
        "名前            5",
        "x\\x1b\\n         -",
    ]
