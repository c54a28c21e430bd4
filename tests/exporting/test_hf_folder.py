"""Folders for transformers: it computes what charlm computes, and its tokenizer loses nothing."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import charlm as library
from charlm.cli import main
from charlm.data.vocab import Vocab
from charlm.exporting.tokenizer import tokenizer_files
from tests.conftest import Charlm
from tests.exporting.conftest import Made

torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns about itself

TEXT = "The old king sees a fox."  # as long as the context
ODD = (
    "a\r\n\n\t  b\u00a0\u2028\x00e\u0301é👩\u200d👧\u202e <unk></s>[CLS]\ufeff,.'s\ue000\U0010ffff"
)
NAMES = ("gpt2", "gpt2-plain", "llama", "llama-biases")


@functools.cache
def opened(folder: Path) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture
def folder(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Export a checkpoint of `made`."""

    def export(name: str, *options: str, **data: Any) -> tuple[Path, Path]:
        path = made(name, **data)
        out = tmp_path_factory.mktemp("hf") / name
        command = ("export", path, "--format", "hf", "--out", out, *options)
        assert main([str(word) for word in command]) == 0
        return path, out

    return export


@pytest.mark.parametrize("name", NAMES)
def test_transformers_computes_the_same_logits(name: str, folder: Any) -> None:
    path, out = folder(name)
    (model, tokenizer), ours = opened(out), library.load(path)
    exact = ours.logits(TEXT)
    assert exact.std() > 0.5
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        np.testing.assert_allclose(model(ids).logits[0].numpy(), exact, atol=1e-4)
    kind = type(model).__name__
    assert kind == ("GPT2LMHeadModel" if "gpt2" in name else "LlamaForCausalLM")


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_generate_writes_what_charlm_writes(name: str, folder: Any) -> None:
    path, out = folder(name)
    (model, tokenizer), ours = opened(out), library.load(path)
    ids = tokenizer("The ", return_tensors="pt")["input_ids"]
    (written,) = model.generate(ids, do_sample=False, max_new_tokens=20)
    assert tokenizer.decode(written) == "The " + ours.sample("The ", length=20, temperature=0)
    # without a prompt, a text starts after a line end, and the default length fits the context
    (written,) = model.generate(do_sample=False)
    assert tokenizer.decode(written) == "\n" + ours.sample("", length=12, temperature=0)
    settings = model.generation_config
    assert (settings.do_sample, settings.temperature, settings.top_k) == (True, 0.8, 0)


def test_the_folder_has_data_only(folder: Any) -> None:
    _, out = folder("llama")
    names = {path.name for path in out.iterdir()}
    expected = {"config.json", "generation_config.json", "model.safetensors"}
    assert names == expected | {"tokenizer.json", "tokenizer_config.json"}
    for path in out.glob("*.json"):
        assert "auto_map" not in json.loads(path.read_text(encoding="utf-8"))


def test_a_folder_is_written_without_the_packages_that_open_it(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("transformers", "tokenizers", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
    _, out = folder("llama")
    assert (out / "config.json").is_file()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_half_weights_take_half_of_the_space(name: str, folder: Any) -> None:
    (path, whole), (_, half) = folder(name), folder(name, "--weights", "fp16")
    sizes = [(it / "model.safetensors").stat().st_size for it in (half, whole)]
    assert sizes[0] < 0.6 * sizes[1]
    model, tokenizer = opened(half)
    assert model.dtype == torch.float16
    logits = model.float()(tokenizer(TEXT, return_tensors="pt")["input_ids"]).logits[0]
    exact = library.load(path).logits(TEXT)
    error = np.abs(logits.detach().numpy() - exact).max()
    assert 0 < error < 0.05 * np.abs(exact).max()


# --- the tokenizer ------------------------------------------------------------------------------


def tokenizer_of(vocab: Vocab) -> Any:
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_files(vocab, 8)["tokenizer.json"]))


VOCABS = {"char": Vocab.of(ODD), "byte": Vocab.of_bytes()}
TOKENIZERS = {unit: tokenizer_of(vocab) for unit, vocab in VOCABS.items()}


@pytest.mark.parametrize("unit", VOCABS)
def test_every_text_is_decoded_to_itself(unit: str) -> None:
    alphabet = st.sampled_from(ODD) if unit == "char" else st.characters(exclude_categories=["Cs"])

    @given(st.text(alphabet))
    def check(text: str) -> None:
        ids = TOKENIZERS[unit].encode(text).ids
        assert ids == VOCABS[unit].encode(text).tolist()
        assert TOKENIZERS[unit].decode(ids) == text
        assert TOKENIZERS[unit].decode(ids, skip_special_tokens=False) == text

    check()


@pytest.mark.parametrize("unit", VOCABS)
def test_transformers_decodes_every_text_to_itself(unit: str, folder: Any) -> None:
    _, out = folder("llama", vocab=VOCABS[unit].chars, unit=unit)
    _, tokenizer = opened(out)
    for text in (ODD, "  ", "\n", "\r\n", "<unk>", "e\u0301", "👩\u200d👧", " b ", ""):
        ids = tokenizer(text)["input_ids"]
        assert ids == VOCABS[unit].encode(text).tolist()
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer) == len(VOCABS[unit])
    assert tokenizer.all_special_tokens == []


def test_an_unknown_character_is_an_error_or_the_sign_for_it() -> None:
    with pytest.raises(Exception, match="UNK"):
        TOKENIZERS["char"].encode("Z")
    limited = tokenizer_of(Vocab("ab\ufffd", limited=True))
    assert limited.encode("aZb").ids == [0, 2, 1]
    assert limited.decode([0, 2, 1]) == "a\ufffdb"


# --- models that transformers does not have -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lstm", "model.kind lstm"),
        ("sinusoidal", "model.position sinusoidal"),
        ("default", "model.mlp relu2 and model.qk_norm true"),
        ("biases", "model.qk_norm true"),
    ],
)
def test_other_models_are_refused(
    name: str, words: str, charlm: Charlm, made: Made, tmp_path: Path
) -> None:
    result = charlm("export", made(name), "--format", "hf", "--out", tmp_path / "a")
    assert result.status == 2
    assert result.err == (
        f"charlm: {made(name)}: --format hf does not write a model with {words}, only a GPT with "
        "the options of GPT-2 (learned, layernorm, gelu) or Llama (rope, rmsnorm, swiglu), without "
        "qk_norm; use --format html or onnx\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", ["hf", "onnx"])
def test_broken_and_damaged_checkpoints_are_refused(
    format_: str, charlm: Charlm, made: Made, tmp_path: Path
) -> None:
    (tmp_path / "cut").write_bytes(made("llama").read_bytes()[:-1])
    for path, words in (
        (made("llama", broken=True), "its weights are broken; use another checkpoint"),
        (tmp_path / "cut", "this checkpoint is damaged"),
    ):
        result = charlm("export", path, "--format", format_, "--out", tmp_path / "out")
        assert result.status == 2
        assert words in result.err
        assert len(result.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]
