"""The text on the page: guesses under every character, two units side by side, a stretch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charlm.checkpoint.format import BEST
from charlm.checkpoint.read import open_checkpoint
from charlm.checkpoint.weights import read_model
from charlm.insight.record import Array
from tests.insight.browser import Page
from tests.insight.pages import arrays_of, data_of, needs_chromium

pytestmark = needs_chromium
CONTEXT = 16  # of the tiny GPT: its first window


def click(page: Page, element: str) -> None:
    page.run(f"document.getElementById('{element}').click()")


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gpt"])
def test_the_guesses_under_each_character_are_those_of_the_model(
    kind: str, page: Page, hostile: dict[str, Path]
) -> None:
    report = hostile[kind] / "report.html"
    page.open(report)
    click(page, "show-guesses")
    page.wait_for("document.querySelectorAll('#text i')[15].children.length")
    shown = page.run(
        f"[...document.querySelectorAll('#text i')].slice(0, {CONTEXT})"
        ".map(i => [...i.children].map(b => [b.textContent, b.className]))"
    )
    ids, vocab = arrays_of(report)["ids"], data_of(report)["about"]["vocab"]
    with open_checkpoint(hostile[kind] / BEST) as checkpoint:
        model = read_model(checkpoint).eval()
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(ids[None, :CONTEXT].astype(np.int64)))
    names = page.run(f"{vocab}.map(code => visible(String.fromCodePoint(code)))")
    for t, p in enumerate(logits[0].double().softmax(-1).numpy()):
        best = sorted(range(len(p)), key=lambda i: -p[i])[:5]
        assert [text for text, _ in shown[t]] == [names[i] for i in best]
        for i, (_, classes) in zip(best, shown[t], strict=True):
            assert ("right" in classes.split()) == (i == ids[t + 1])
            steps = [int(name[1:]) for name in classes.split() if name != "right"]
            assert sum(steps) == pytest.approx(p[i] * 7, abs=0.51)  # seven shades
    # further text gets its guesses when it comes into view, and all of them can be taken away
    last = len(ids) - 1
    assert page.run(f"document.querySelectorAll('#text i')[{last}].children.length") == 0
    page.run(f"document.querySelectorAll('#text i')[{last}].scrollIntoView()")
    page.wait_for(f"document.querySelectorAll('#text i')[{last}].children.length === 5")
    click(page, "show-guesses")
    assert page.run("document.querySelectorAll('#text b').length") == 0
    assert page.problems == []


def test_text_and_guesses_fit_on_the_screen_of_a_phone(
    page: Page, hostile: dict[str, Path]
) -> None:
    page.open(hostile["lstm"] / "report.html", width=390, height=700)
    page.run("document.documentElement.style.scrollBehavior = 'auto'")
    page.run("document.getElementById('text').scrollIntoView()")
    boxes = page.run(
        "['text', 'detail'].map(id => document.getElementById(id).getBoundingClientRect())"
        ".map(box => [box.top, box.bottom])"
    )
    (text_top, text_bottom), (detail_top, detail_bottom) = boxes
    assert -1 <= text_top < text_bottom <= detail_top < detail_bottom <= 701
    assert text_bottom - text_top > 200


def test_a_second_unit_is_shown_beside_the_first(page: Page, hostile: dict[str, Path]) -> None:
    report = hostile["lstm"] / "report.html"
    page.open(report)
    page.run(
        "colours = id => [...document.querySelectorAll(`#${id} i`)]"
        ".map(i => i.className.replace('picked', '').trim())"
    )
    page.run(
        "pick = (id, value) => { const it = document.getElementById(id); it.value = value;"
        "['change', 'input'].forEach(name => it.dispatchEvent(new Event(name))); }"
    )
    click(page, "show-second")
    page.run("pick('kind', 'h'); pick('index', 3); pick('kind-2', 'c'); pick('index-2', 5)")
    seconds = page.run("colours('text-2')")
    page.run("pick('kind', 'c'); pick('index', 5)")
    assert page.run("colours('text')") == seconds
    page.run("pick('kind', 'h'); pick('index', 3)")
    assert page.run("colours('text')") != seconds

    rows = [tuple(row) for row in data_of(report)["units"]["rows"]]
    layer = page.run("Number(document.getElementById('layer').value)")
    units = arrays_of(report)["units"].astype(np.float64)
    a, b = (units[rows.index((kind, layer, i))] for kind, i in (("h", 3), ("c", 5)))
    said = page.run("document.getElementById('correlation').textContent")
    expected = f"{np.corrcoef(a, b)[0, 1]:+.2f}".replace("-", "\u2212")
    assert f"on this text: {expected} " in said

    page.run("document.getElementById('text-2').focus()")
    page.press("ArrowRight")
    at = "[...document.querySelectorAll('#{} i')].findIndex(i => i.matches('.current'))"
    assert page.run(at.format("text")) == page.run(at.format("text-2")) > 0
    assert page.run("document.querySelectorAll('#detail .value').length") == 2
    click(page, "show-second")
    assert page.run("document.getElementById('text-2')") is None
    assert page.run("document.querySelectorAll('#detail .value').length") == 1
    assert page.problems == []


# --- a stretch -------------------------------------------------------------------------------


def windows_on(on: Array, first: int, length: int) -> list[bool]:
    """For each window that does not overlap the stretch, whether it is on throughout."""
    starts = [s for s in range(len(on) - length + 1) if abs(s - first) >= length]
    return [bool(on[start : start + length].all()) for start in starts]


def find_units(report: Path, first: int, last: int) -> tuple[list[tuple[Any, ...]], float]:
    """The units (share, kind, layer, index, sign, where on) that are on in a stretch, best first,
    and the mean number in another window. A slow second way, from the arrays of the page."""
    units, found, expected = data_of(report)["units"], [], 0.0
    rows = zip(units["rows"], units["scales"], units["shown"], strict=True)
    for (row, scale, shown), steps in zip(rows, arrays_of(report)["units"], strict=True):
        values = steps.astype(np.float64) * scale / units["levels"]
        for sign in (1, -1):
            on = (sign * values >= 0.5 * shown * (1 - 1e-12)) & (values != 0)
            share = float(np.mean(windows_on(on, first, last - first + 1) or [False]))
            expected += share
            if on[first : last + 1].all():
                found.append((share, *row, sign, on))
    return sorted(found, key=lambda each: each[0]), expected


@pytest.mark.parametrize(("kind", "first", "last"), [("lstm", 30, 33), ("gpt", 101, 101)])
def test_a_selected_stretch_shows_the_units_that_are_on_there_and_elsewhere(
    kind: str, first: int, last: int, page: Page, hostile: dict[str, Path]
) -> None:
    report, length = hostile[kind] / "report.html", last - first + 1
    page.open(report)
    page.run("spans = document.querySelectorAll('#text i')")
    page.run(f"getSelection().setBaseAndExtent(spans[{first}], 0, spans[{last}], 1)")
    page.wait_for(
        "document.getElementById('stretch-result').textContent.includes("
        f"'from position {first + 1}.')"
    )
    found, expected = find_units(report, first, last)
    said = page.run("document.getElementById('stretch-result').textContent")
    assert f"{len(found)} unit{'s' * (len(found) != 1)} on throughout" in said
    assert f"{expected:.1f} on average" in said
    cells = page.run(
        "[...document.querySelectorAll('#stretch-result table')].map(table => [...table.rows]"
        ".slice(1).map(row => [...row.cells].map(cell => cell.textContent)))"
    )
    assert len(found) > 1
    shares = [float(row[1].split()[0]) for row in cells[0]]
    assert shares == pytest.approx([100 * each[0] for each in found[:8]], abs=0.0501)
    for name, _, _ in cells[0]:  # each is on there, on the side that its sign says
        assert any(name == named(page, each) for each in found)

    used = [each for each in found[:5] if each[0] < 0.5]
    counts = np.sum([each[-1] for each in used], axis=0)
    sums = {s: int(counts[s : s + length].sum()) for s in range(len(counts) - length + 1)}
    places: list[int] = []
    for start in sorted(sums, key=lambda s: (-sums[s], s)):
        if all(abs(start - other) >= length for other in (first, *places)) and sums[start]:
            places.append(start)
    expected_shares = [100 * sums[s] / length / len(used) for s in places[:8]]
    assert [float(row[1].split()[0]) for row in cells[1]] == pytest.approx(expected_shares, abs=0.5)
    page.run(
        "document.querySelectorAll('#stretch-result table')[1].querySelector('button').click()"
    )
    at = "[...document.querySelectorAll('#text i')].findIndex(i => i.matches('.current'))"
    assert page.run(at) == places[0]
    assert page.problems == []


def named(page: Page, unit: tuple[Any, ...]) -> str:
    _, kind, layer, index, sign, _ = unit
    name = str(page.run(f"unitName({{kind: '{kind}', layer: {layer}, index: {index}}})"))
    return ("\u2212" if sign < 0 else "") + name


def test_a_stretch_can_be_selected_with_the_keyboard(page: Page, hostile: dict[str, Path]) -> None:
    page.open(hostile["rnn"] / "report.html")
    page.run("document.getElementById('text').focus()")
    at = page.run("[...document.querySelectorAll('#text i')].findIndex(i => i.matches('.current'))")
    picked = (
        "[...document.querySelectorAll('#text i')].flatMap((i, n) => i.matches('.picked') ? n : [])"
    )
    for _ in range(3):
        page.press("ArrowRight", shift=True)
    page.wait_for(f"({picked}).length === 4")
    assert page.run(picked) == list(range(at, at + 4))
    for _ in range(5):
        page.press("ArrowLeft", shift=True)
    # on the way there the length is 3, too
    page.wait_for(f"({picked}).length === 3 && ({picked})[0] === {at - 2}")
    assert page.run(picked) == list(range(at - 2, at + 1))
    assert page.problems == []
