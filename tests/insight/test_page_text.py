"""The text on the page: guesses under every character, two units side by side, a stretch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from charlm.checkpoint.format import BEST
from charlm.checkpoint.read import open_checkpoint
from charlm.checkpoint.weights import read_model
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
    page.run("colours = id => [...document.querySelectorAll(`#${id} i`)].map(i => i.className)")
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
