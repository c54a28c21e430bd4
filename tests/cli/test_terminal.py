"""What the terminal shows of a run."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from charlm.cli.terminal import View, _short
from charlm.observer import Record
from tests.training.helpers import make_config, start


@pytest.fixture
def view(tiny_text: Path, tmp_path: Path) -> View:
    return View(start(make_config(tiny_text, "lstm"), tmp_path, "cpu").run)


def test_control_characters_of_a_sample_are_escaped(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    view.sample(3, "a\x1b[2Jb\rc\td\u3000é\u00a0\n")
    assert "a\\x1b[2Jb\\rc\td\u3000é\u00a0\n" in capsys.readouterr().out


def test_only_the_lowest_loss_is_marked_as_the_best_so_far(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    for loss in (2.0, 3.0, 1.0):
        view.record(Record(1, "val", loss, loss / 0.69, 1, 1.0))
    marked = ["best so far" in line for line in capsys.readouterr().out.splitlines()]
    assert marked == [True, False, True]


def test_a_notice_names_options_as_the_command_line_has_them(
    view: View, capsys: pytest.CaptureFixture[str]
) -> None:
    view.notice("a smaller model, or device=cuda")
    assert capsys.readouterr().err == "charlm: note: a smaller model, or --device cuda\n"


def test_each_line_is_in_a_log_file_at_once(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(log, "utf-8"))  # is not flushed by itself
    view.begin(["model\x1b", "text"])
    assert log.getvalue() == b"model\\x1b\ntext\n"
    view.sample(3, "the")
    assert log.getvalue().endswith(b"the\n---\n")


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, "step 6/12, epoch {epoch} · loss 1.25 · 51k chars/s · 0:00 left"),
        (60, "step 6/12, epoch {epoch} · loss 1.25 · 51k chars/s · 0:00 left"),
        (50, "step 6/12, epoch {epoch} · loss 1.25 · 0:00 left"),
        (35, "step 6/12 · loss 1.25 · 0:00 left"),
        (25, "step 6/12 · 0:00 left"),
        (9, "step 6/12"),
        (3, "step 6/12"),
    ],
)
def test_the_line_of_progress_fits(view: View, columns: int, shown: str) -> None:
    view.progress(0.5)
    view.progress(1.0)
    view.record(Record(6, "train", 1.2512, 1.8, 100, 1.0, chars_per_s=51_234.5))
    view.record(Record(6, "val", 9.9, 9.9, 100, 1.0))
    view._run.progress.step = 6
    text, room = view._status(columns)
    assert text == shown.format(epoch=f"{6 / view._run.steps_per_epoch:.1f}")
    assert room == columns - len(text)


@pytest.mark.parametrize(
    ("number", "short"), [(7.4, "7"), (999.4, "999"), (51_234, "51k"), (1_250_000, "1.2M")]
)
def test_a_speed_is_short(number: float, short: str) -> None:
    assert _short(number) == short
