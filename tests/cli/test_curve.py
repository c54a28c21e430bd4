"""The losses as a picture: made by hand, and against dots that another rule finds."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from unicodedata import name

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.cli.curve import COLUMNS, ROWS, draw_curve
from charlm.cli.terminal import View
from charlm.observer import Record
from tests.conftest import Charlm
from tests.training.helpers import make_config, start

PLACES = {"1": (0, 0), "2": (0, 1), "3": (0, 2), "7": (0, 3)}  # of the dots: column, row
PLACES |= {"4": (1, 0), "5": (1, 1), "6": (1, 2), "8": (1, 3)}
Points = list[tuple[int, float]]


def dots(lines: list[str]) -> dict[int, set[int]]:
    """The rows of the dots in each column of dots, by the Unicode names of the characters."""
    found: dict[int, set[int]] = {}
    for row, line in enumerate(lines[1:]):
        for column, char in enumerate(line[8:]):
            for number in name(char).partition("DOTS-")[2]:
                x, y = PLACES[number]
                found.setdefault(2 * column + x, set()).add(4 * row + y)
    return found


def test_a_picture_made_by_hand() -> None:
    # 32 dots for 100 steps: step 10 is at dot 3, which is on the right of the second character.
    # 20 dots for losses from 1 to 2: 1.5 is at dot 9.5, so in the third line.
    train = [(0, 9.0), (10, 1.0), (100, 1.0)]  # before step 10, it is too high for the picture
    assert draw_curve({"train": train, "val": [(50, 2.0), (100, 1.5)]}, 24) == [
        "loss    step 0 to 100: train (line), val (o)",
        "     ≥2  ⢸      o",
        "         ⢸",
        "         ⢸             o",
        "         ⢸",
        "      1  ⢸⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀",
    ]


@given(st.lists(st.floats(1, 2), max_size=90))
def test_the_line_is_where_the_losses_are_and_has_no_gaps(values: list[float]) -> None:
    values = [2.0, *values, 1.0, 2.0]  # the whole range, also after the first tenth of the steps
    drawn = draw_curve({"train": list(enumerate(values)), "val": []}, COLUMNS)
    found = dots(drawn)
    assert sorted(found) == list(range(104))
    for step, loss in enumerate(values):
        rows = found[round(step * (103 / (len(values) - 1)))]
        assert min(abs(y - (2 - loss) * 19) for y in rows) <= 0.5 + 1e-9
    for x, rows in found.items():
        assert len(rows) == max(rows) - min(rows) + 1
        assert min(abs(a - b) for a in rows for b in found.get(x - 1, rows)) <= 1


def test_several_losses_of_one_column_are_drawn_as_their_mean() -> None:
    train = [(step, 2.0 + step % 2) for step in range(10_000)]  # 2 and 3 in turn
    drawn = draw_curve({"train": train, "val": [(0, 2.0), (9_999, 3.0)]}, COLUMNS)
    found = dots([line.replace("o", " ") for line in drawn])
    assert set().union(*found.values()) <= {9, 10}  # the middle of 20


@pytest.mark.parametrize(
    ("losses", "labels"),
    [
        ([(0, 4.0), (1, 3.5), (50, 2.0), (99, 1.0)], ("≥2", "1")),  # from step 10 on
        ([(0, 4.0), (50, 5.0)], ("5", "4")),  # it rises
        ([(0, 4.0), (50, 1.0)], ("4", "1")),  # nothing but the lowest loss comes later
        ([(0, 4.0), (50, 4.0)], ("4", "4")),
        ([(0, 1.4), (50, 1e20), (60, math.nan), (99, 1.23456)], ("1.4", "1.235")),
    ],
)
def test_the_labels_are_the_range_of_the_picture(losses: Points, labels: tuple[str, str]) -> None:
    for split, other in (("train", "val"), ("val", "train")):
        drawn = draw_curve({split: losses, other: []}, COLUMNS)
        assert (drawn[1].split()[0], drawn[-1].split()[0]) == labels
        assert other not in drawn[0]


numbers = st.floats(0.5, 5) | st.sampled_from([math.nan, math.inf, -math.inf, 1e300, 1e14, 0.0])
points = st.lists(st.tuples(st.integers(-(10**18), 10**18) | st.integers(0, 99), numbers))


@given(points, points, st.integers(0, 100))
def test_any_losses_fit_into_the_picture(train: Points, val: Points, columns: int) -> None:
    drawn = draw_curve({"train": train, "val": val}, columns)
    assert len(drawn) in (0, ROWS + 1)
    for line in drawn[1:]:
        assert len(line) <= min(columns, COLUMNS)
        assert all(
            c in " o" or name(c).startswith("BRAILLE")
            for c in line.lstrip().lstrip("≥0123456789.e+-")
        )


@pytest.mark.parametrize(
    ("losses", "columns"),
    [([], 60), ([(3, 1.0)], 60), ([(3, 1.0), (3, 2.0)], 60), ([(3, 1.0), (4, 1.0)], 23)],
)
def test_without_two_steps_or_room_there_is_no_picture(losses: Points, columns: int) -> None:
    assert draw_curve({"train": losses, "val": losses}, columns) == []


# --- where it is shown ------------------------------------------------------------------------


def on_terminal(monkeypatch: pytest.MonkeyPatch, **different: object) -> None:
    """Make the output look like a terminal with UTF-8, or not quite."""
    for stream in ("stdout", "stderr"):
        is_terminal = stream not in different
        monkeypatch.setattr(getattr(sys, stream), "isatty", lambda is_it=is_terminal: is_it)
    monkeypatch.setattr("locale.getencoding", lambda: different.get("encoding", "UTF-8"))


def with_losses(tiny_text: Path, folder: Path, plot: bool) -> View:
    """The view of a run that has written two losses, and the start of a line."""
    run = start(make_config(tiny_text, "lstm"), folder, "cpu").run
    records = [{"split": "train", "step": step, "loss": 3.0 - step / 10} for step in (1, 9)]
    lines = [*map(json.dumps, records), '{"split": "val", "st']
    (run.folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return View(run, plot)


Output = pytest.CaptureFixture[str]
EVALUATED = Record(9, "val", 2.0, 2.9, 100, 1.0)


def test_it_is_drawn_at_the_end(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, tiny_text: Path, tmp_path: Path
) -> None:
    on_terminal(monkeypatch)
    view = with_losses(tiny_text, tmp_path, plot=False)
    view.record(EVALUATED)
    assert "loss  " not in capsys.readouterr().out
    view.draw()
    drawn = capsys.readouterr().out
    assert drawn.startswith("loss    step 1 to 9: train (line)\n    2.9 \u2809")
    assert len(drawn.splitlines()) == ROWS + 1


def test_with_plot_it_is_drawn_at_each_evaluation_and_not_again_at_the_end(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, tiny_text: Path, tmp_path: Path
) -> None:
    on_terminal(monkeypatch)
    view = with_losses(tiny_text, tmp_path, plot=True)
    view.record(EVALUATED)
    view.draw()
    assert capsys.readouterr().out.count("\nloss  ") == 1


@pytest.mark.parametrize(
    "different", [{"stdout": "pipe"}, {"stderr": "pipe"}, {"encoding": "ISO-8859-1"}]
)
def test_it_is_not_drawn_in_a_pipe_or_without_utf_8(
    different: dict[str, str],
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
    tiny_text: Path,
    tmp_path: Path,
) -> None:
    on_terminal(monkeypatch, **different)
    view = with_losses(tiny_text, tmp_path, plot=True)
    view.record(EVALUATED)
    view.draw()
    assert "loss  " not in capsys.readouterr().out


def test_charlm_train_draws_what_charlm_runs_draws(
    charlm: Charlm, monkeypatch: pytest.MonkeyPatch, tiny_text: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--steps", "6", "--eval-every", "2", "--hidden-size", "8", "--name", "a")
    with monkeypatch.context() as patch:
        on_terminal(patch)
        trained = charlm("train", tiny_text, *options).out
    shown = charlm("runs", "a", "--curve").out
    heading, row, *lines = shown.splitlines()
    assert heading.startswith("NAME ")
    assert row.startswith("a  ")
    assert lines[0] == "loss    step 2 to 6: val (o)"
    assert "\n".join([*lines, "finished at step 6"]) in trained
    (tmp_path / "checkpoints" / "a" / "metrics.jsonl").unlink()
    assert charlm("runs", "--curve").out.splitlines()[2:] == [
        "no curve: the run has no losses of two steps"
    ]
