"""scripts/reproduce: a cut-down grid, resumed runs, its pages and its errors."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import charlm
from charlm.observer import Observer
from tests.conftest import script_module
from tests.insight.browser import browsing
from tests.insight.pages import HOSTILE, elements, needs_chromium


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """The script, with small networks, trained in a way that no timing decides."""
    module = script_module("reproduce")
    exact = {"optimizer": {"kind": "adamw"}, "precision": "fp32", "kernels": "off"}
    small = {"model": {"kind": "lstm", "hidden_size": 16}, "train": {}}

    def simplified(plan: Any) -> Any:
        def planned(asked: Any) -> Any:
            runs, missing = plan(asked)
            configs = [run.config or small for run in runs]
            configs = [config | {"train": config["train"] | exact} for config in configs]
            pairs = zip(runs, configs, strict=True)
            return [replace(run, config=config) for run, config in pairs], missing

        return planned

    with pytest.MonkeyPatch.context() as patch:
        for experiment in module.EXPERIMENTS.values():
            patch.setattr(experiment, "plan", simplified(experiment.plan))
        yield module


@pytest.fixture(scope="module")
def grid(
    script: Any, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path]:
    """A finished grid of 2 kinds x 1 layer x 2 sizes: its arguments without --out, its folder."""
    given = ["--kinds", "lstm", "rnn", "--layers", "1", "--sizes", "8", "16", "--steps", "5"]
    arguments, out = ["paper", "--data", str(tiny_text), *given], tmp_path_factory.mktemp("grid")
    assert script.main([*arguments, "--out", str(out)]) == 0
    return arguments, out


def data_of(page: Path) -> Any:
    found = [
        text for attributes, text in elements(page, "script") if attributes.get("id") == "data"
    ]
    return json.loads(found[0])


def without_minutes(page: Path) -> Any:
    data = data_of(page)
    table = data["sections"][-1]["parts"][0]
    at = table["heads"].index("minutes")
    for row in table["rows"]:
        assert float(row.pop(at)) >= 0
    return data


def test_the_table_has_the_test_loss_of_each_network(grid: tuple[list[str], Path]) -> None:
    _, out = grid
    _, measured, *_ = data_of(out / "paper.html")["sections"][0]["parts"]
    assert measured["heads"] == ["units", "lstm 1", "rnn 1"]
    for row in measured["rows"]:
        for kind, shown in zip(("lstm", "rnn"), row[1:], strict=True):
            run = out / "runs" / f"{kind}-1x{row[0]}"
            assert shown == f"{charlm.evaluate(run, split='test').nats_per_char:.3f}"


def test_finished_runs_are_not_trained_again_and_give_the_same_page(
    script: Any, grid: tuple[list[str], Path]
) -> None:
    arguments, out = grid
    page, files = (out / "paper.html").read_bytes(), sorted(out.rglob("*.safetensors"))
    written = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 8  # best and last of each
    assert script.main([*arguments, "--out", str(out)]) == 0
    assert (out / "paper.html").read_bytes() == page
    assert [path.stat().st_mtime_ns for path in files] == written


class Stop(Observer):
    """Interrupts a run after its second step, as Ctrl-C."""

    steps = 0

    def progress(self, fraction: float) -> None:  # noqa: ARG002
        self.steps += 1
        if self.steps == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stopped_run_continues_to_the_same_page(
    script: Any, grid: tuple[list[str], Path], tmp_path: Path
) -> None:
    arguments, out = grid
    asked = script.parsed(arguments)
    runs, _ = script.EXPERIMENTS["paper"].plan(asked)
    with pytest.raises(KeyboardInterrupt):
        script.train(runs[0], tmp_path / "runs", 1.0, asked.steps, [Stop()])
    stopped = script.state_of(tmp_path / "runs" / runs[0].name)
    assert (stopped[0].state, stopped[0].step) == ("stopped", 2)
    assert script.main([*arguments, "--out", str(tmp_path)]) == 0
    assert without_minutes(tmp_path / "paper.html") == without_minutes(out / "paper.html")


@pytest.fixture(scope="module")
def essay(script: Any, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the essay for two short texts, one of them hostile."""
    folder = tmp_path_factory.mktemp("essay")
    hostile = HOSTILE.replace("\r", "") + 'he said "yes, it is so" and left\n' * 20
    (folder / "novel.txt").write_text(hostile * 5, encoding="utf-8")
    (folder / "names.txt").write_text(tiny_text.read_text(encoding="utf-8")[:4000])
    arguments = ["essay", "--only", "novel", "names", "--steps", "5", "--out"]
    texts = [f"--text={name}={folder / name}.txt" for name in ("novel", "names")]
    assert script.main([*arguments, str(folder), *texts]) == 0
    return folder / "essay.html"


def test_the_essay_has_its_parts_and_no_text_as_markup(essay: Path) -> None:
    texts, samples, temperatures, quotes, _ = data_of(essay)["sections"]
    assert {row[1] for row in texts["parts"][0]["rows"]} == {"novel.txt", "names.txt"}
    assert len(samples["parts"]) == 3  # a text and a row for each run
    captions = [part["caption"] for part in temperatures["parts"][1]["parts"]]
    assert captions == [f"novel, temperature {t}" for t in ("0.2", "0.5", "0.8", "1", "1.3")] or (
        captions == [f"names, temperature {t}" for t in ("0.2", "0.5", "0.8", "1", "1.3")]
    )
    shaded = quotes["parts"][-1]
    assert shaded["kind"] == "shaded"
    assert len(shaded["chars"]) == len(shaded["levels"])
    assert max(map(abs, shaded["levels"])) <= 7
    content = essay.read_text(encoding="utf-8")
    assert "<img" not in content
    assert content.count("<script") == 2  # the data and the script


@needs_chromium
def test_the_pages_fit_a_phone_and_ask_for_nothing(
    essay: Path, grid: tuple[list[str], Path], tmp_path: Path
) -> None:
    with browsing(tmp_path) as browser:
        for page in (essay, grid[1] / "paper.html"):
            for width in (1280, 390):
                browser.open(page, width)
                assert browser.run("document.documentElement.scrollWidth") <= width
                assert browser.run("document.title").endswith("Networks: reproduction")
        assert browser.problems == []
        assert all(url.startswith(("file:", "about:")) for url in browser.requests)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("essay --minutes 0", "--minutes 0: should be above 0"),
        ("essay --minutes nan", "--minutes nan: should be above 0"),
        ("paper --steps 0", "--steps 0: give a number above 0"),
        ("paper --sizes 0", "--layers and --sizes: give numbers above 0"),
        ("paper --only x", "--only x: there is no such run; see --list"),
        ("essay --text x=y", "--text x=y: use NAME=FILE, NAME one of graham, "),
        ("essay --text novel=/none", "--text novel=/none: there is no such file"),
        ("poem", "argument experiment: invalid choice: 'poem'"),
        ("paper --data /none --steps 1 --out OUT", "/none: cannot read this text: "),
    ],
)
def test_an_error_is_one_line(
    script: Any, arguments: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(arguments.replace("OUT", str(tmp_path / "out")).split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"reproduce: {problem}")
    assert error.count("\n") == 1


def test_list_trains_nothing(
    script: Any, tiny_text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["paper", "--data", str(tiny_text), "--minutes", "6", "--list", "--out", str(out)]
    assert script.main(arguments) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len([line for line in shown if "10 s each" in line and " new " in line]) == 36
    assert not out.exists()
    assert all(
        line.endswith(f" {tiny_text}, for War and Peace in the paper") for line in shown[:36]
    )


def test_list_says_for_which_text_of_the_essay_each_text_stands(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No text is here but the library of Python, and a file that is given as the names."""
    monkeypatch.setattr(script.reproduce_essay, "have", lambda _: None)
    (names := tmp_path / "my names").write_text("Ann\nBob\n")
    assert script.main(["essay", "--list", "--text", f"names={names}"]) == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert listed["linux"].endswith(" builtin:python, for source code of Linux in the essay")
    assert listed["names"].endswith(f" {names}, for baby names in the essay")
    assert set(listed) == {"linux", "names", "not"}
