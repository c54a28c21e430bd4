"""The page in Chromium: what it writes, and how it is used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import charlm
from charlm.cli import main
from charlm.page.document import _array_element
from tests.conftest import KINDS, ROOT, TinyConfig, TinyRun, train_with
from tests.insight.pages import data_of, needs_chromium
from tests.playground.conftest import IDLE, MadePage, Playground
from tests.playground.test_engine import AFFINE
from tests.test_visible import is_hidden

TEXT = "The old king sees the fox. No one sings to my lord!"


# --- what it writes ---------------------------------------------------------------------------


@needs_chromium
@pytest.mark.parametrize("kind", KINDS)
def test_it_predicts_what_the_model_predicts(
    kind: str, ground: Playground, made: MadePage, tiny_run: TinyRun
) -> None:
    ground.open(made(kind, "fp32"), prompt=TEXT)  # longer than the context of the GPT
    model = charlm.load(tiny_run(kind))
    logits = ground.page.run("[...takes.get(1).network.logits]", worker=True)
    np.testing.assert_allclose(logits, model.logits(TEXT)[-1], atol=1e-4)
    records = ground.run("takes[0].records")
    bits = [record["bits"] for record in records]
    assert bits[0] == -1
    np.testing.assert_allclose(bits[1:], model.surprisal(TEXT[1:], prompt=TEXT[0]), atol=1e-3)
    chars, probabilities = model.next(TEXT[:20])
    assert "".join(model.vocab.chars[i] for i in records[20]["guesses"]) == "".join(chars[:6])
    np.testing.assert_allclose(records[20]["probabilities"], probabilities[:6], atol=1e-5)


@needs_chromium
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_writes_the_same_text(kind: str, ground: Playground, made: MadePage) -> None:
    settings = {"prompt": "The ", "t": "0.7,1.3", "speed": 8}
    texts = []
    for seed in (5, 5, 6):
        ground.open(made(kind, "int8"), **settings, seed=seed)
        texts.append(ground.write(60))
    assert texts[0] == texts[1] != texts[2]
    assert all(text.startswith("The ") for text in texts[0])
    assert texts[0][0] != texts[0][1]


@needs_chromium
def test_at_temperature_0_it_writes_what_charlm_sample_writes(
    ground: Playground, made: MadePage, tiny_run: TinyRun
) -> None:
    for kind in ("lstm", "mlp", "gpt"):
        for prompt in ("my lord", ""):
            ground.open(made(kind, "fp32"), prompt=prompt, t="0", speed=8)
            (text,) = ground.write(50)
            model = charlm.load(tiny_run(kind))
            assert text == (prompt + model.sample(prompt, length=50, temperature=0))[:50]


@needs_chromium
@pytest.mark.parametrize("kind", KINDS)
def test_without_webassembly_it_writes_the_same_text(
    kind: str, ground: Playground, made: MadePage, tmp_path: Path
) -> None:
    content = made(kind, "int8").read_text(encoding="utf-8")
    code, nothing = (
        _array_element("code", np.frombuffer(it, np.uint8))
        for it in ((ROOT / AFFINE).read_bytes(), b"no module")
    )
    assert content.count(code) == 1
    other = tmp_path / "other.html"
    other.write_text(content.replace(code, nothing), encoding="utf-8")
    found = []
    for path in (made(kind, "int8"), other):
        ground.open(path, prompt="The ", speed=8, t="1.2,0.8")
        in_wasm = ground.page.run("wasm !== null", worker=True)
        found.append((in_wasm, ground.write(200)))
    assert [in_wasm for in_wasm, _ in found] == [True, False]
    assert found[0][1] == found[1][1]


@needs_chromium
def test_a_repetition_penalty_writes_what_charlm_sample_writes(
    ground: Playground, made: MadePage, tiny_run: TinyRun
) -> None:
    for prompt in ("my lord", ""):
        ground.open(made("gru", "fp32"), prompt=prompt, t="0", repetition_penalty=1.5, speed=8)
        (text,) = ground.write(90)
        model = charlm.load(tiny_run("gru"))
        expected = model.sample(prompt, length=90, temperature=0, repetition_penalty=1.5)
        assert text == (prompt + expected)[:90]


@needs_chromium
def test_bytes_are_written_and_copied_as_text(
    ground: Playground, tiny_config: TinyConfig, tmp_path: Path
) -> None:
    text = tmp_path / "bytes.txt"
    text.write_text("le café est fermé\n" * 300, encoding="utf-8")
    raw = tiny_config("gru") | {"data": {"path": str(text), "unit": "byte", "val_fraction": 0.2}}
    run, out = train_with(raw, tmp_path), tmp_path / "page.html"
    assert main(["export", str(run), "--weights", "fp32", "--out", str(out)]) == 0
    ground.open(out, prompt="café", t="0", speed=8)
    assert ground.run("takes[0].ids") == [*"café".encode()]
    ground.write(15)
    assert ground.run("takes[0].text()").startswith("café")
    ids = ground.run("takes[0].ids")
    model = charlm.load(run)
    ids_of_model = (
        ("café" + model.sample("café", length=40, temperature=0)).encode("utf-8", "surrogateescape")
    )[:15]
    assert bytes(ids[:15]) == ids_of_model


# --- how it is used ---------------------------------------------------------------------------


@needs_chromium
@pytest.mark.parametrize("kind", ["lstm", "mlp", "gpt"])
def test_a_road_that_was_not_taken_continues_in_a_new_take(
    kind: str, ground: Playground, made: MadePage, tiny_run: TinyRun
) -> None:
    ground.open(made(kind, "fp32"), prompt=TEXT, speed=8)
    ground.run("takes[0].view.select(20)")
    others = ground.page.run(
        "[...document.querySelectorAll('.road')].map((each) => each.innerText)"
    )
    assert len(others) == 5
    assert TEXT[20] not in others
    guess = ground.run("takes[0].records[20].guesses.find((id) => id !== takes[0].ids[20])")
    ground.click(".road")
    ground.wait("takes.length === 2 && takes[1].ids.length > 40")
    ground.run("desk.play(takes, false)")
    ground.wait(IDLE)
    first, second = ground.run("takes.map((take) => take.text())")
    model = charlm.load(tiny_run(kind))
    assert first == TEXT
    assert second[:21] == TEXT[:20] + model.vocab.chars[guess]
    # the new take has the state of its own text
    bits = ground.run("takes[1].records.map((record) => record.bits)")
    np.testing.assert_allclose(bits[1:], model.surprisal(second[1:], prompt=second[0]), atol=1e-3)


@needs_chromium
def test_it_can_be_used_with_the_keyboard(ground: Playground, made: MadePage) -> None:
    ground.open(made("lstm", "int8"), prompt=TEXT)
    ground.page.run("document.querySelector('.text').focus()")
    for _ in range(3):
        ground.page.press("ArrowRight")
    assert ground.run("[desk.selected.position, takes[0].view.current]") == [3, 3]
    road = ground.page.run("document.querySelectorAll('.road')[1].innerText")
    ground.page.press("2")
    ground.wait("takes.length === 2")
    assert ground.run("takes[1].text().slice(0, 4)").replace(" ", "\u2423") == (
        TEXT[:3].replace(" ", "\u2423") + road
    )
    ground.run("desk.play(takes, false)")
    ground.page.run("document.querySelectorAll('.text')[1].focus()")
    ground.page.press("Escape")
    assert ground.run("desk.selected") is None
    # what cannot be selected any more is not described any more
    ground.run("takes[0].view.select(30)")
    ground.run("takes[0].setText(takes[0].ids.slice(0, 10))")
    assert ground.run("desk.selected") is None


@needs_chromium
@pytest.mark.parametrize("kind", ["gru", "mlp", "gpt"])
def test_an_edited_text_is_read_again_from_the_change(
    kind: str, ground: Playground, made: MadePage, tiny_run: TinyRun
) -> None:
    ground.open(made(kind, "fp32"), prompt=TEXT * 3)
    edited = TEXT + TEXT.replace("sees", "loves") + TEXT
    ground.run("takes[0].onEdit()")
    ground.run(f"takes[0].editor.value = {json.dumps(edited)}")
    ground.run("takes[0].onEdit()")
    ground.wait(IDLE)
    model = charlm.load(tiny_run(kind))
    bits = ground.run("takes[0].records.map((record) => record.bits)")
    assert ground.run("takes[0].text()") == edited
    np.testing.assert_allclose(bits[1:], model.surprisal(edited[1:], prompt=edited[0]), atol=1e-3)


@needs_chromium
def test_it_steps_by_a_character_and_keeps_the_speed(ground: Playground, made: MadePage) -> None:
    ground.open(made("rnn", "int8"), prompt="The ")
    for length in (5, 6):
        ground.click("#step")
        ground.wait(f"takes[0].ids.length === {length}")
        ground.wait(IDLE)
    assert ground.run("takes[0].playing") is False
    assert ground.run("takes[0].ids.length") == 6
    ground.click("#again")
    ground.wait(IDLE)
    assert ground.run("takes[0].text()") == "The "


@needs_chromium
@pytest.mark.parametrize("kind", KINDS)
def test_units_gates_and_heads_are_those_of_the_model(
    kind: str, ground: Playground, made: MadePage, tiny_run: TinyRun
) -> None:
    import torch

    from charlm.insight.record import record

    model = charlm.load(tiny_run(kind))
    text = TEXT[:16]  # the context of the GPT
    recorded = record(model.torch_model(), model.vocab.encode(text))
    values = {**recorded.units, **recorded.gates}
    ground.open(made(kind, "fp32"), prompt=text)
    for each in data_of(made(kind, "fp32"))["units"]["kinds"]:
        name = each["kind"]
        ground.run(f"desk.watch.unit({{ kind: '{name}', layer: 1, index: 1 }})")
        ground.wait(f"{IDLE} && takes[0].records.length === {len(text)}")
        shown = ground.run("takes[0].records.map((record) => record.value)")
        if name != "attention":
            np.testing.assert_allclose(shown, values[name][1, :, 1], atol=2e-3, err_msg=name)
            continue
        from charlm.insight.trace import trace

        ids = torch.from_numpy(model.vocab.encode(text).astype(np.int64))[None]
        exact = trace(model.torch_model(), ids, with_attention=True)[0].attention
        assert exact is not None
        for t, row in enumerate(shown):
            np.testing.assert_allclose(row, exact[1, 0, 1, t, : t + 1].detach().numpy(), atol=1e-4)


@needs_chromium
def test_the_link_has_the_prompt_the_seed_and_the_settings(
    ground: Playground, made: MadePage
) -> None:
    choice = {"top_k": 4, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.1}
    ground.open(made("rnn", "int8"), prompt="The ", t="0.5,1", seed=9, speed=8, **choice)
    texts = ground.write(30)
    ground.run("desk.onSetting()")
    link = ground.page.run("location.hash")
    ground.page.call("Page.navigate", url="about:blank")
    ground.page.call("Page.navigate", url=made("rnn", "int8").as_uri() + link)
    ground.page.wait_for("document.documentElement?.dataset.ready === 'yes'")
    assert ground.write(30) == texts
    # what a link says is checked
    ground.open(made("rnn", "int8"), prompt="\x1b[31m\u202eA", t="x,1e9", seed=-3, top_k="no",
        min_p=7, repetition_penalty=0)  # fmt: skip
    assert ground.run("desk.settings.of(takes[0])") == {
        "temperature": 10, "topK": None, "topP": None, "minP": 1, "penalty": 1e-6, "seed": 0,
    }  # fmt: skip
    assert not any(map(is_hidden, ground.page.run("document.getElementById('prompt').value")))
