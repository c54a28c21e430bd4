"""The parts of the page beside the text: the network, its words, the maps; nothing cut off."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from charlm.checkpoint.format import BEST
from charlm.checkpoint.read import open_checkpoint
from charlm.checkpoint.weights import read_model
from tests.insight.browser import Page
from tests.insight.helpers import RECURRENT
from tests.insight.pages import arrays_of, data_of, needs_chromium

pytestmark = needs_chromium
ALL_GATES = {"input gate", "forget gate", "output gate", "gate"}


@pytest.mark.parametrize(
    ("kind", "present", "absent"),
    [
        ("rnn", {"hidden h"}, {"cell c", "head", "MLP unit", *ALL_GATES}),
        ("lstm", {"hidden h", "cell c", *ALL_GATES}, {"head", "MLP unit", "update gate"}),
        ("mlp", {"hidden h"}, {"cell c", "head", "MLP unit", *ALL_GATES}),
        ("gpt", {"head", "MLP unit", "residual x"}, {"hidden h", "cell c", *ALL_GATES}),
    ],
)
def test_a_page_explains_the_words_of_its_network_and_draws_its_sizes(
    kind: str, present: set[str], absent: set[str], page: Page, hostile: dict[str, Path]
) -> None:
    page.open(hostile[kind] / "report.html")
    words = set(page.run("[...document.querySelectorAll('.words dt')].map(it => it.textContent)"))
    assert present | {"unit", "AUC", "surprisal (surprise)"} <= words
    assert not words & absent
    sections = page.run("[...document.querySelectorAll('section')].map(it => it.id)")
    assert ("gates" in sections) == (kind == "lstm")
    assert ("attention" in sections) == (kind == "gpt")
    empty = "[...document.querySelectorAll('section')].filter(it => it.children.length < 2)"
    assert page.run(f"{empty}.length") == 0
    with open_checkpoint(hostile[kind] / BEST) as checkpoint:
        model = read_model(checkpoint)
    lines = "[...document.querySelectorAll('svg.network text')].map(it => it.textContent)"
    drawing = page.run(f"{lines}.join(' | ')")
    numbers = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) parameters", drawing)]
    assert sum(numbers) == sum(parameter.numel() for parameter in model.parameters())
    assert ("its state" in drawing) == (kind in RECURRENT)
    assert ("\u00d7 2" in drawing) == (kind == "gpt")


@pytest.mark.parametrize("kind", ["rnn", "lstm", "mlp", "gpt"])
def test_nothing_is_cut_off_at_1280_pixels(kind: str, page: Page, hostile: dict[str, Path]) -> None:
    page.open(hostile[kind] / "report.html", width=1280)
    wide = page.run(
        "[...document.querySelectorAll('body *')].filter(it => it.scrollWidth > it.clientWidth + 1"
        " && getComputedStyle(it).overflowX !== 'visible').map(it => it.className)"
    )
    assert wide == []
    outside = page.run(
        "[...document.querySelectorAll('svg text, canvas, button')].filter(it => {"
        "const box = it.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; })"
        ".map(it => it.textContent)"
    )
    assert outside == []
    outside = page.run(  # each text of the drawing is inside it
        "[...document.querySelectorAll('svg.network text')].filter(it => {"
        "const a = it.getBoundingClientRect(), b = it.closest('svg').getBoundingClientRect();"
        "return a.left < b.left || a.right > b.right; }).map(it => it.textContent)"
    )
    assert outside == []


def test_the_map_of_the_characters_has_every_character_at_its_place(
    page: Page, hostile: dict[str, Path]
) -> None:
    page.open(hostile["lstm"] / "report.html")
    data = data_of(hostile["lstm"] / "report.html")
    xy, vocab = data["embeddings"]["xy"], data["about"]["vocab"]
    shown = page.run(
        "[...document.querySelectorAll('#map text.mapped')]"
        ".map(it => [it.textContent, Number(it.getAttribute('x')), Number(it.getAttribute('y'))])"
    )
    names = page.run(f"{vocab}.map(code => visible(String.fromCodePoint(code)))")
    places = {name: (x, y) for name, x, y in shown}
    assert set(places) == set(names)
    for axis, sign in ((0, 1), (1, -1)):  # y grows downwards
        values = np.array([xy[names.index(name)][axis] for name in places])
        pixels = np.array([places[name][axis] for name in places])
        assert np.corrcoef(values, sign * pixels)[0, 1] > 1 - 1e-9


def test_the_attention_map_has_the_colour_of_its_legend_and_axes_with_room_for_each_character(
    page: Page, hostile: dict[str, Path]
) -> None:
    report = hostile["gpt"] / "report.html"
    page.open(report)
    attention = (arrays_of(report)["attention"] / 255.0) ** 2  # (L, H, T, T)
    T = attention.shape[-1]
    layer, head = (
        page.run(f"Number(document.getElementById('map-{n}').value)") for n in ("layer", "head")
    )
    layout = f"mapLayout({T}, document.querySelector('.map').clientWidth)"
    cell, margin = (page.run(f"{layout}.{name}") for name in ("cell", "margin"))
    pen = "document.querySelector('.map canvas').getContext('2d')"
    more, paper = (np.array([int(hexa[i : i + 2], 16) for i in (1, 3, 5)]) for hexa in (
        page.run(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')")
        for name in ("more", "paper")
    ))  # fmt: skip
    size = page.run(f"{pen}.canvas.width")
    raw = page.run(f"[...{pen}.getImageData(0, 0, {size}, {size}).data]")
    pixels = np.reshape(raw, (size, size, 4))[..., :3]
    middles = (margin + (np.arange(T) + 0.5) * cell).astype(int)
    shares = np.sqrt(attention[layer, head])[..., None]
    expected = paper + shares * (more - paper)
    past = np.tril(np.ones((T, T), np.bool_))  # keys up to the query
    np.testing.assert_allclose(pixels[np.ix_(middles, middles)][past], expected[past], atol=2)
    for length in (2, 16, 64, 128):
        for width in (330, 552):
            found = page.run(f"mapLayout({length}, {width})")
            assert found["lanes"] * found["cell"] >= page.run("LABEL")
            assert found["side"] + found["margin"] <= width
