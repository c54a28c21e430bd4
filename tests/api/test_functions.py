"""charlm.evaluate, charlm.inspect and charlm.runs give what the commands print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charlm as library
from charlm.checkpoint.format import BEST, LAST
from charlm.errors import CharlmError
from tests.conftest import Charlm, TinyRun


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"split": "test"},
        {"protocol": "windows", "window": 9},
        {"data": "other.txt", "on_unknown": "skip"},
        {"data": ["other.txt"], "split": "train", "on_unknown": "skip"},
    ],
)
def test_evaluate_is_the_command(
    arguments: dict[str, Any], charlm: Charlm, workplace: Path
) -> None:
    (workplace / "other.txt").write_text("The old king [sees] the fox.\n" * 20, encoding="utf-8")
    options = [
        word
        for name, value in arguments.items()
        for word in (f"--{name.replace('_', '-')}", *([value] if name != "data" else ["other.txt"]))
    ]
    printed = json.loads(charlm("eval", *options, "--json", "--device", "cpu").out)
    for checkpoint in (None, "checkpoints/lstm", library.load()):
        score = library.evaluate(checkpoint, **arguments, device="cpu")
        assert score.nats_per_char == printed["nats_per_char"]
        assert score.description == printed["description"]
        assert score.chars == printed["chars"]


def test_inspect_is_the_command(charlm: Charlm, workplace: Path) -> None:
    printed = json.loads(charlm("inspect", "--length", 300, "--json", "--device", "cpu").out)
    model = library.load()
    survey = library.inspect(model, length=300, out="page.html", device="cpu")
    assert json.loads(json.dumps(survey.numbers()))["search"] == printed["search"]
    assert survey.bits_per_char == printed["bits_per_char"]
    assert (workplace / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    # the first character is read as the first of a text
    np.testing.assert_allclose(
        survey.bits[1:], model.surprisal(survey.text[1:], survey.text[0]), atol=1e-3
    )
    charlm("inspect", "--length", 300, "--out", "other.html", "--device", "cpu")
    pages = [(workplace / name).read_text("utf-8") for name in ("page.html", "other.html")]
    assert pages[0] == pages[1]
    with pytest.raises(CharlmError, match="already exists; use force=True"):
        library.inspect(out="page.html", length=300)
    library.inspect(out=workplace / "page.html", length=100, data="lstm.yaml", force=True,
                    on_unknown="skip", device="cpu")  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ('evaluate(split="vel")', "split='vel' should be one of train, val, test, all"),
        ('evaluate(protocol="x")', "protocol='x' should be 'stream', 'windows' or 'items'"),
        ("evaluate(window=0)", "window=0 should be greater than or equal to 1"),
        ("evaluate(window=5)", 'window=5 needs protocol="windows"'),
        ('evaluate(on_unknown="no")', "on_unknown='no' should be one of error, skip"),
        ('evaluate(protcol="stream")', "evaluate() got an unexpected keyword argument 'protcol'; "
         "did you mean protocol=?"),
        ("inspect(lenght=9)", "inspect() got an unexpected keyword argument 'lenght'; did "
         "you mean length=?"),
        ("evaluate(data=5)", "data= should be a path or a list of paths"),
        ('evaluate("missing")', "missing: no such checkpoint or run"),
        ("inspect(length=1)", "length=1 should be from 2 to 100,000"),
        ("inspect(length=1.5)", "length= should be an integer, not float"),
        ('inspect(split="vel")', "split='vel' should be one of train, val, test, all"),
        ('runs("missing")', "missing: no such folder; train a run with charlm train"),
    ],
)  # fmt: skip
def test_arguments_are_checked(call: str, message: str, workplace: Path) -> None:
    with pytest.raises((CharlmError, TypeError, ValueError)) as caught:
        eval(f"library.{call}")
    assert str(caught.value).startswith(message)


def test_runs(tiny_run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("gru", "gpt"):
        shutil.copytree(tiny_run(kind), tmp_path / kind)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / LAST).write_bytes((tmp_path / "gru" / LAST).read_bytes()[:1000])
    found = {run.name: run for run in library.runs(tmp_path)}
    assert set(found) == {"gru", "gpt"}
    model = library.load(tmp_path / "gpt")
    assert found["gpt"].best_loss == model.meta.progress.best_loss
    assert found["gpt"].parameters == model.meta.parameters
    assert (found["gpt"].step, found["gpt"].state) == (6, "finished")
    assert [run.name for run in library.runs(tmp_path / "gru")] == ["gru"]
    assert library.runs(str(tmp_path / "gru"))[0].folder / BEST == tmp_path / "gru" / BEST
    assert len(caplog.records) == 1
    assert "left out: " in caplog.text
