"""`charlm export` and `charlm play`: the file, and mistakes. tests/playground has the page."""

from __future__ import annotations

import os
import re
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.playground import weights as formats
from charlm.playground.weights import pack, unpack
from tests.conftest import Charlm, python

RUN = Path("checkpoints") / "lstm"
PAGE = RUN / "play.html"


def test_the_page_is_beside_the_checkpoint(charlm: Charlm, workplace: Path) -> None:
    result = charlm("export", "lstm")
    assert (result.status, result.err) == (0, "")
    size = PAGE.stat().st_size
    assert f"page  {PAGE} ({size / 1e6:.1f} MB, weights in int8)" in result.out
    assert f"open  {PAGE.absolute().as_uri()}" in result.out
    assert re.search(r"loss  \d\.\d{4} nats/char, of which rounding is [+-]0\.\d{5} \(", result.out)


def test_an_existing_file_is_not_replaced_without_force(charlm: Charlm, workplace: Path) -> None:
    mine = Path("mine.html")
    mine.write_text("mine")
    result = charlm("export", "lstm", "--out", mine)
    assert result.status == 2
    assert result.err == (
        "charlm: mine.html: already exists; use --force to overwrite it, or --out FILE for "
        "another file\n"
    )
    assert mine.read_text() == "mine"
    assert charlm("export", "lstm", "--out", mine, "--force").status == 0
    assert mine.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_can_go_to_standard_output(workplace: Path) -> None:
    ended = python("-m", "charlm", "export", "lstm", "--out", "/dev/stdout", cwd=workplace)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("<!doctype html>")
    assert ended.stdout.endswith("</html>\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only_is_reported(charlm: Charlm, workplace: Path) -> None:
    Path("closed").mkdir(0o500)
    result = charlm("export", "lstm", "--out", "closed/a.html")
    assert result.status == 2
    assert "closed/a.html: cannot write the page: no permission to write in closed" in result.err


def test_a_folder_that_is_missing_is_reported(charlm: Charlm, workplace: Path) -> None:
    result = charlm("export", "lstm", "--out", "nowhere/a.html")
    assert result.status == 2
    assert result.err == (
        "charlm: nowhere/a.html: cannot write the page: there is no folder nowhere; use --out FILE "
        "for another file\n"
    )


def test_a_model_that_is_too_large_for_a_page_is_refused(
    charlm: Charlm, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "MAX_BYTES", 20_000)
    result = charlm("export", "lstm", "--weights", "fp32")
    assert result.status == 2
    assert re.search(r"in fp32 has about 0 MB.*; use --weights int8, which has 0 MB\n", result.err)
    assert charlm("export", "lstm").status == 0
    monkeypatch.setattr(formats, "MAX_BYTES", 200)
    result = charlm("export", "lstm", "--force")
    assert result.status == 2
    assert "use" not in result.err
    assert len(result.err.splitlines()) == 1


def test_without_the_text_the_loss_is_not_measured(
    charlm: Charlm, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(workplace / "empty"))
    result = charlm("export", "lstm")
    assert (result.status, result.err) == (0, "")
    assert "loss  not measured: the text that the model was trained on is not in" in result.out
    assert "not measured" in PAGE.read_text(encoding="utf-8")


def test_exact_weights_need_no_torch(workplace: Path) -> None:
    code = (
        "import sys; from charlm.cli import main; main(['export', 'lstm', '--weights', 'fp32']);"
        "print('torch' in sys.modules)"
    )
    ended = python("-c", code, cwd=workplace)
    assert ended.stdout.splitlines()[-1] == "False", ended.stderr


@pytest.mark.parametrize("opens", [True, False])
def test_play_opens_a_page_in_a_temporary_folder(
    opens: bool, charlm: Charlm, workplace: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def open_page(url: str) -> bool:
        opened.append(url)
        return opens

    monkeypatch.setattr(webbrowser, "open", open_page)
    result = charlm("play", "lstm", "--weights", "fp16")
    assert result.status == 0
    (page,) = temporary.glob("charlm-play-*/play.html")
    assert opened == [page.as_uri()]
    assert opened[0] in result.out
    assert ("no browser was found" in result.err) is not opens
    assert not PAGE.exists()


# --- rounding ---------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from([1e-30, 1e-3, 1.0, 1e4]))
def test_rounding_to_int8_errs_by_half_a_step_at_most(seed: int, size: float) -> None:
    rows = np.random.default_rng(seed).normal(0, size, (5, 7)).astype(np.float32)
    rows[2] = 0
    vector = rows[0].copy()
    packed = pack({"a.weight": rows, "a.bias": vector}, "int8")
    found = unpack(packed)
    step = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert (np.abs(found["a.weight"] - rows) <= 0.5001 * step).all()
    np.testing.assert_array_equal(found["a.bias"], vector)
    assert set(found) == {"a.weight", "a.bias"}


@given(st.integers(0, 2**32))
def test_fp16_and_fp32_are_those_of_numpy(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(0, 3, (5, 7)).astype(np.float32)
    half = unpack(pack({"a": rows}, "fp16"))["a"]
    np.testing.assert_array_equal(half, rows.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(unpack(pack({"a": rows}, "fp32"))["a"], rows)
