"""The page: its contents, and, if Chromium is installed, its behaviour."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from charlm.checkpoint.format import BEST
from charlm.checkpoint.read import open_checkpoint
from charlm.checkpoint.weights import read_model
from charlm.insight.record import record
from tests.insight.browser import Page
from tests.insight.pages import Elements, arrays_of, data_of, elements, needs_chromium
from tests.test_visible import is_hidden

TAGS = "html head meta link title style body header h1 p nav noscript main script"


# --- contents ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_the_page_runs_only_its_own_script_and_links_nowhere(
    kind: str, hostile: dict[str, Path]
) -> None:
    page = hostile[kind] / "report.html"
    tags = {tag for tag, _, _ in Elements(page.read_text(encoding="utf-8")).found}
    assert tags <= set(TAGS.split())
    (code,) = [text for attributes, text in elements(page, "script") if "type" not in attributes]
    (style,) = [text for _, text in elements(page, "style")]
    policy = next(str(a["content"]) for a, _ in elements(page, "meta") if "http-equiv" in a)
    for text in (code, style):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    links = re.findall(r"(?:https?:)?//[a-z][^\s\"'`]*", code + style)
    assert [link for link in links if link != "http://www.w3.org/2000/svg"] == []


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_the_page_has_every_character_and_every_unit(kind: str, hostile: dict[str, Path]) -> None:
    page = hostile[kind] / "report.html"
    data, arrays = data_of(page), arrays_of(page)
    with open_checkpoint(hostile[kind] / BEST) as checkpoint:
        meta, model = checkpoint.meta, read_model(checkpoint).eval()
    assert "".join(map(chr, data["about"]["vocab"])) == meta.vocab
    recorded = record(model, arrays["ids"])
    assert data["bits_per_char"] == pytest.approx(np.nanmean(recorded.nats) / np.log(2), rel=1e-4)
    np.testing.assert_allclose(
        arrays["bits"][1:] * np.log(2), recorded.nats[1:], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(arrays["guesses"], recorded.guesses)
    np.testing.assert_allclose(arrays["probabilities"] / 65535, recorded.probabilities, atol=1e-5)
    units, levels = data["units"], data["units"]["levels"]
    assert len(units["rows"]) == sum(each["layers"] * each["size"] for each in units["kinds"])
    rows = zip(units["rows"], units["scales"], arrays["units"], strict=True)
    for (unit_kind, layer, index), scale, row in rows:
        exact = recorded.units[unit_kind][layer, :, index].astype(np.float64)
        np.testing.assert_allclose(row / levels * scale, exact, atol=0.6 * scale / levels)


def test_what_the_page_says_about_the_text_is_visible(hostile: dict[str, Path]) -> None:
    page = hostile["lstm"] / "report.html"
    ((_, title),) = elements(page, "title")
    about = {key: it for key, it in data_of(page)["about"].items() if isinstance(it, str)}
    assert "<img src=x>\\x1b[2J\\u202e\\u2028\\n.txt (val)" in about["source"]
    assert not any(map(is_hidden, "".join([title, *about.values()])))


# --- behaviour -------------------------------------------------------------------------------


def colours(page: Page) -> list[str]:
    found = page.run("[...document.querySelectorAll('#text i')].map(i => i.className)")
    return [name.replace("current", "").strip() for name in found]


@needs_chromium
@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_units_and_characters_can_be_selected_without_any_request(
    kind: str, page: Page, hostile: dict[str, Path]
) -> None:
    report = hostile[kind] / "report.html"
    page.open(report)
    first = colours(page)
    page.run("document.getElementById('next').click()")
    assert colours(page) != first
    page.run("document.getElementById('previous').click()")
    assert colours(page) == first
    kinds = page.run("[...document.getElementById('kind').options].map(o => o.value)")
    seen = {tuple(first)}
    for name in kinds:
        page.run(f"kind = document.getElementById('kind'); kind.value = '{name}'")
        page.run("kind.dispatchEvent(new Event('change'))")
        seen.add(tuple(colours(page)))
    assert len(seen) >= len(kinds)
    page.point_at("#text i", 25)
    detail = page.run("document.getElementById('detail').innerText")
    assert len(re.findall(r"\d+\.\d\s%", detail)) == 5  # guesses, with their probabilities
    assert re.search(r"loss\s+\d+\.\d\d bits", detail)
    # a page that scrolls moves another character under the pointer
    page.run("document.getElementById('text').focus({preventScroll: true})")
    page.press("ArrowRight")
    position = "[...document.querySelectorAll('#text i')].findIndex(i => i.matches('.current'))"
    assert page.run(position) == 26
    page.press("ArrowDown")
    page.press("Home")
    chars = page.run("state.chars")
    assert chars[page.run(position) - 1] == "\n"
    assert page.run("document.getElementById('detail').innerText") != detail
    page.run("document.getElementById('sample-slider').value = 1")
    page.run("document.getElementById('sample-slider').dispatchEvent(new Event('input'))")
    assert "</script><script>" in page.run("document.getElementById('sample').textContent")
    assert report.as_uri() in page.requests
    assert all(url.startswith(("file:", "data:")) for url in page.requests)
    assert page.problems == []


@needs_chromium
def test_markup_in_a_text_is_shown_as_text(page: Page, hostile: dict[str, Path]) -> None:
    report = hostile["lstm"] / "report.html"
    page.open(report, width=390, height=800)
    assert page.run("document.title") == "lstm: inspection report"
    assert page.run("document.querySelectorAll('img, script[src], iframe').length") == 0
    shown = page.run("[...document.querySelectorAll('#text i')].map(i => i.textContent).join('')")
    for piece in ("</script><script>", "<img", "&lt;b&gt;", '"quotes"', "U+0007U+001B[31mred"):
        assert piece in shown
    for piece in (
        "U+202Eback",
        "U+2028↵",
        "U+000D↵",
        "שלום",
        "عربى",
        "◌\u0301",
        "\U0001f600",
        "中",
    ):
        assert piece in shown
    assert not set(shown) & set("\x07\x1b\x7f\u202e\u202c\u2066\u2069\u200b\ufeff\u2028\r")
    # no horizontal scrolling on a phone
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert page.problems == []
