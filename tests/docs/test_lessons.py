"""docs/learn: the code of the lessons runs, with the outputs and figures that they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from charlm.cli.arguments import make_parser
from charlm.cli.train_options import overrides
from charlm.config.files import parse_config
from charlm.scratch.functions import cross_entropy
from charlm.scratch.gpt import GPT
from tests.conftest import ROOT, script_module

LEARN = ROOT / "docs" / "learn"
LESSONS = sorted(LEARN.glob("[1-9]-*.md"))
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
each_page = pytest.mark.parametrize("page", [*LESSONS, LEARN / "README.md"], ids=lambda it: it.stem)


def commands(lesson: Path) -> list[list[str]]:
    """The commands of all blocks of shell code."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", lesson.read_text("utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines]


def test_there_are_nine_lessons_and_the_index_lists_them() -> None:
    assert [path.name[0] for path in LESSONS] == list("123456789")
    index = (LEARN / "README.md").read_text("utf-8")
    assert re.findall(r"^\d\. \[.*?\]\((.*?)\)", index, re.M) == [path.name for path in LESSONS]


@each_lesson
def test_a_lesson_prints_and_draws_what_it_shows(
    lesson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text, picture = script_module("figures").run(lesson)
    assert text == lesson.read_text("utf-8")
    assert picture == lesson.with_suffix(".svg").read_text("utf-8")


def test_an_output_that_is_wrong_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = script_module("figures")
    monkeypatch.setitem(figures.pictures.PICTURES, "page", lambda names: str(names["x"]))
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n3\n```\n")
    assert figures.run(page) == (page.read_text().replace("3", "2"), "1")


@each_lesson
def test_a_lesson_has_its_parts(lesson: Path) -> None:
    text = lesson.read_text("utf-8")
    assert 80 <= len(text.splitlines()) <= 150
    assert text.startswith(f"# {lesson.name[0]}. ")
    assert "**The idea.** " in text
    assert re.findall(r"^!\[.+\]\((.*)\)$", text, re.M) == [lesson.with_suffix(".svg").name]
    assert re.findall(r"^\*\*(\d)\. .*\?\*\*\n<details><summary>Answer</summary>$", text, re.M) == [
        *"123"
    ]
    assert text.count("</details>") == 3
    assert "**Sources.** " in text


@each_page
def test_the_links_of_a_lesson_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((.*?)\)", page.read_text("utf-8"))
    assert targets
    for target in targets:
        assert (LEARN / target).is_file()


@each_lesson
def test_the_commands_of_a_lesson_are_valid(lesson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are parsed, with their settings; a run is used only after it was trained."""
    monkeypatch.chdir(ROOT)
    trained: set[str] = set()
    for program, *words in commands(lesson):
        assert program == "charlm"
        options = make_parser().parse_args(words)
        if words[0] == "train":
            text = words[1]
            assert Path(text).is_file()
            config = parse_config({"data": {"path": text}}, overrides(options), options.name)
            assert config.train.max_steps
            trained.add(config.name)
        else:
            used = options.runs if words[0] == "compare" else [options.checkpoint]
            for run in used:  # a name, or a file in its folder
                assert (run.parent.name if run.suffix else run.name) in trained
    assert trained


@each_lesson
def test_a_figure_is_one_picture_for_light_and_dark_pages(lesson: Path) -> None:
    source = lesson.with_suffix(".svg").read_text("utf-8")
    picture = ElementTree.fromstring(source)
    width, height = (float(picture.attrib[it]) for it in ("width", "height"))
    assert picture.attrib["viewBox"] == f"0 0 {width:g} {height:g}"
    assert "prefers-color-scheme: dark" in source
    assert not re.search(r"<script|http(?!://www.w3.org/2000/svg)", source)
    for element in picture.iter():
        assert not re.search("nan|inf", " ".join(element.attrib.values()))
        for name, end in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(element.attrib.get(name, 0)) <= end


# --- the experiments of lessons 7 and 8 ----------------------------------------------------------

VARIANTS = script_module("learn_experiments").VARIANTS


def variant(name: str, V: int = 7, T: int = 5) -> GPT:
    kind, heads = VARIANTS[name]
    random = GPT.random(np.random.default_rng(0), V, D=8, L=2, H=heads, context=T)
    model: GPT = kind(random.weights, heads)
    return model


@pytest.mark.parametrize("name", VARIANTS)
def test_the_gradient_of_a_variant_is_its_slope(name: str) -> None:
    model, rng = variant(name), np.random.default_rng(1)
    ids = rng.integers(0, 7, (2, 6))

    def loss() -> tuple[float, np.ndarray]:
        return cross_entropy(model.forward(ids[:, :-1])[0], ids[:, 1:])

    grads = model.backward(loss()[1])
    for weight in ("blocks.0.attention.qkv.weight", "embed.weight", "blocks.1.mlp.out.bias"):
        W, direction = model.weights[weight], rng.normal(size=model.weights[weight].shape)
        ends = []
        for step in (1e-5, -2e-5):
            W += step * direction
            ends.append(loss()[0])
        W += 1e-5 * direction
        slope = (ends[0] - ends[1]) / 2e-5
        assert slope == pytest.approx((grads[weight] * direction).sum(), rel=1e-6)


def test_squared_scores_are_the_square() -> None:
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 1, 4, 3))
    y, _ = VARIANTS["squared dot product"][0].attend(q, k, v)
    for t in range(4):
        e = np.array([np.exp((q[0, 0, t] @ k[0, 0, s]) ** 2 / 3) for s in range(t + 1)])
        assert y[0, 0, t] == pytest.approx(e @ v[0, 0, : t + 1] / e.sum())


@pytest.mark.parametrize(
    ("name", "seen"),
    [("as in `gpt.py`", "past"), ("lower left masked", "future"), ("nothing masked", "all")],
)
def test_a_place_sees_what_its_mask_leaves(name: str, seen: str) -> None:
    model, ids = variant(name), np.array([[1, 2, 3, 4, 5]])
    before, _ = model.forward(ids)
    for t in range(5):
        other = ids.copy()
        other[0, t] = 0
        changed = np.flatnonzero(np.abs(model.forward(other)[0] - before)[0].max(axis=-1) > 1e-9)
        expected = {"past": range(t, 5), "future": range(t + 1), "all": range(5)}[seen]
        assert changed.tolist() == [*expected]


def test_only_the_usual_mask_has_the_same_loss_in_training_and_in_sampling() -> None:
    module = script_module("learn_experiments")
    ids = np.random.default_rng(1).integers(0, 7, 200)
    for name in VARIANTS:
        in_training, in_sampling = module.measured(variant(name, T=module.T), ids)
        is_fair = name not in ("lower left masked", "nothing masked")
        assert (in_training == pytest.approx(in_sampling, abs=1e-9)) == is_fair


def test_the_tables_of_the_lessons_are_those_of_one_run() -> None:
    """Lessons 7 and 8 show the same numbers for the model that both compare with."""
    rows = [
        re.findall(r"^\| as in `gpt\.py` \|(.*)\|$", path.read_text("utf-8"), re.M)
        for path in LESSONS[6:8]
    ]
    assert len(rows[0]) == 1
    assert rows[0] == rows[1]
