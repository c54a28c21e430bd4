"""The page as a file: what it contains, how it starts, and what it shows of hostile text."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

import charlm
from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import open_checkpoint, read_meta
from charlm.outputs import write_output
from charlm.playground.page import _describe, build_page
from tests.conftest import TinyConfig, TinyRun, train_with
from tests.insight.browser import Page
from tests.insight.pages import HOSTILE, Elements, data_of, needs_chromium
from tests.playground.conftest import MadePage, Playground
from tests.test_visible import is_hidden

# --- how it starts ----------------------------------------------------------------------------


@needs_chromium
def test_it_says_that_the_model_is_loading(ground: Playground, made: MadePage) -> None:
    watch = """self.seen = []; new MutationObserver(() => {
        const text = document.getElementById("loading")?.textContent;
        if (text && text !== seen.at(-1)) seen.push(text);
    }).observe(document, { subtree: true, childList: true, characterData: true });"""
    script = ground.page.call("Page.addScriptToEvaluateOnNewDocument", source=watch)
    try:
        ground.open(made("gpt", "int8"))
    finally:
        ground.page.call("Page.removeScriptToEvaluateOnNewDocument", **script)
    first, *more = ground.page.run("seen")
    assert first == "Loading the model \u2026"
    shares = [int(re.sub(r"Loading the model: (\d+)\xa0%", r"\1", text)) for text in more]
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert ground.page.run("document.getElementById('loading')") is None


@needs_chromium
def test_an_error_in_the_worker_is_shown(page: Page, made: MadePage) -> None:
    page.open(made("rnn", "int8"))
    page.run("ANSWERS.go = () => { throw Error('<b>no memory\u202e'); }", worker=True)
    page.run("document.getElementById('step').click()")
    page.wait_for("document.getElementById('failure') !== null")
    assert page.run("document.getElementById('failure').textContent") == (
        "The model does not work: Uncaught Error: <b>no memoryU+202E. "
        "Reload the page to start it again."
    )


@needs_chromium
def test_a_file_that_is_broken_says_so(page: Page, made: MadePage, tmp_path: Path) -> None:
    content = made("rnn", "int8").read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    head, mark, rest = content.partition('id="array-head.weight"')
    broken.write_text(head + mark + rest.replace(">", ">****", 1), encoding="utf-8")
    page.call("Page.navigate", url=broken.as_uri())
    page.wait_for("document.getElementById('failure') !== null")
    shown = page.run("document.getElementById('failure').textContent")
    assert shown.startswith("The model does not work: ")
    assert page.run("document.getElementById('loading')") is None


# --- hostile text -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def hostile_page(tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a model whose text, prompt and vocabulary have markup and control characters."""
    out = tmp_path_factory.mktemp("hostile")
    text = out / "<img src=x>\x1b[2J\u202e\n.txt"
    text.write_bytes((HOSTILE * 60).encode("utf-8"))
    raw = tiny_config("lstm") | {"data": {"path": str(text), "val_fraction": 0.2}}
    raw["sample"] = {"prompt": HOSTILE}
    page = out / "page.html"
    with open_checkpoint(train_with(raw, out) / "best.safetensors") as checkpoint:
        vocab = checkpoint.meta.vocab.replace("q", "\ud800").replace("k", "\udc9b")
        checkpoint.meta = checkpoint.meta.model_copy(update={"vocab": vocab})
        write_output(page, build_page(checkpoint, "int8")[0].encode(), "page", False)
    return page


@needs_chromium
def test_hostile_text_is_shown_as_text(ground: Playground, hostile_page: Path) -> None:
    ground.open(hostile_page, speed=8, t="1.5")
    ground.write(len(HOSTILE) + 600)
    page = ground.page
    assert page.run("document.title") == "lstm: playground"
    assert page.run("document.querySelectorAll('img, iframe, article script').length") == 0
    shown = page.run("document.querySelector('.text').textContent")
    for piece in ("</script><script>", "<img src=x", "U+001B", "U+202E", "U+D800", "\\x9B"):
        assert piece in shown
    assert not any(map(is_hidden, shown.replace("\n", "")))
    ground.run("takes[0].view.select(0)")
    assert "<" in page.run("document.getElementById('detail').innerText")
    before = ground.run("takes[0].text()")
    ground.run("takes[0].onEdit()")
    editor = ground.run("takes[0].editor.value")
    assert not any(map(is_hidden, set(editor) - set("\n\t")))
    ground.run("takes[0].onEdit()")  # what was not touched stays as it was
    assert ground.run("takes[0].text()") == before


@needs_chromium
@pytest.mark.parametrize(("width", "height"), [(390, 800), (1280, 900)])
def test_it_fits_on_a_phone_and_on_a_desk(
    width: int, height: int, page: Page, hostile_page: Path
) -> None:
    page.open(hostile_page, width, height)
    assert page.run("document.documentElement.scrollWidth") <= width


@needs_chromium
def test_the_worker_cannot_send_anything(page: Page, made: MadePage) -> None:
    page.open(made("rnn", "int8"))
    # this needs no network, so nothing but the policy refuses it
    attempt = "fetch('data:text/plain,a').then(() => 'sent', () => 'refused')"
    page.run(f"self.outcome = null; {attempt}.then((it) => {{ self.outcome = it; }}); 0", True)
    while (outcome := page.run("self.outcome", worker=True)) is None:
        time.sleep(0.02)
    assert outcome == "refused"


# --- the file ---------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(made: MadePage) -> None:
    content = made("lstm", "int8").read_text(encoding="utf-8")
    policy = next(str(a["content"]) for _, a, _ in Elements(content).found if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert policy.endswith("worker-src blob:")
    (scripts,) = [each for each in policy.split("; ") if each.startswith("script-src")]
    assert re.fullmatch(r"script-src 'sha256-[\w+/=]+' 'wasm-unsafe-eval'", scripts)
    assert policy.count("unsafe") == 1
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "innerHTML", "eval(", "importScripts"):
        assert word not in content


def test_the_page_names_the_text_without_its_folder(tiny_run: TinyRun, tiny_text: Path) -> None:
    about = _describe(read_meta(tiny_run("lstm") / LAST))["about"]
    assert about["source"] == tiny_text.name
    assert str(tiny_text.parent) not in json.dumps(about)


def test_the_page_says_what_its_rounding_costs(made: MadePage, tiny_run: TinyRun) -> None:
    losses = data_of(made("lstm", "int8"))["weights"]["losses"]
    exact = charlm.evaluate(tiny_run("lstm"))
    assert losses["chars"] == exact.chars
    assert losses["exact"] == pytest.approx(exact.nats_per_char, rel=1e-4)
    assert losses["rounded"] - losses["exact"] == pytest.approx(losses["cost"], abs=2e-4)
    assert 0 < abs(losses["cost"]) < 0.01
    assert data_of(made("lstm", "fp32"))["weights"]["losses"] is None
