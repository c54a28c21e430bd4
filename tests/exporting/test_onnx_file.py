"""ONNX files: onnxruntime computes what charlm computes, in any split of a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import charlm as library
from charlm.checkpoint.read import open_checkpoint
from charlm.exporting import onnx_file
from charlm.exporting.onnx_file import build_onnx
from tests.conftest import ROOT, Charlm, python
from tests.exporting.conftest import NETWORKS, Made

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TEXTS = ("The old king sees", "my lord fears my ")  # as long, and shorter than the context
SPLITS = ((17,), (1,) * 17, (2, 13, 1, 1))


def session_of(path: Path, weights: str = "fp32") -> Any:
    with open_checkpoint(path) as checkpoint:
        return onnxruntime.InferenceSession(build_onnx(checkpoint, weights)[0])


TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def fresh_state(session: Any, B: int) -> dict[str, NDArray[Any]]:
    """The state of B texts at their start, of the shapes that the file declares."""
    sizes = {"batch": B, "past": 0}
    return {
        part.name: np.zeros([sizes.get(size, size) for size in part.shape], TYPES[part.type])
        for part in session.get_inputs()[1:]
    }


def read(session: Any, ids: NDArray[np.int64], split: tuple[int, ...]) -> NDArray[np.float32]:
    """The logits of ids (B, T), read in pieces: (B, T, V)."""
    state, logits, start = fresh_state(session, len(ids)), [], 0
    for length in split:
        new, *after = session.run(None, {"ids": ids[:, start : start + length]} | state)
        state, start = dict(zip(state, after, strict=True)), start + length
        logits.append(new)
    return np.concatenate(logits, axis=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_are_those_of_the_model_in_any_split(name: str, made: Made) -> None:
    session, model = session_of(made(name)), library.load(made(name))
    exact = np.stack([model.logits(text) for text in TEXTS])  # by an engine, not by PyTorch
    assert exact.std() > 0.5
    ids = np.stack([model.vocab.encode(text) for text in TEXTS]).astype(np.int64)
    for split in SPLITS:
        np.testing.assert_allclose(read(session, ids, split), exact, atol=1e-4)
    np.testing.assert_allclose(read(session, ids[:1], SPLITS[0]), exact[:1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "state", "shape"),
    [
        ("rnn", ["h"], [1, "batch", 16]),
        ("gru", ["h"], [2, "batch", 16]),
        ("lstm", ["h", "c"], [2, "batch", 16]),
        ("default", ["k_1", "v_1", "k_2", "v_2"], ["batch", 2, "past", 8]),
    ],
)
def test_the_inputs_and_outputs_have_names_and_free_sizes(
    name: str, state: list[str], shape: list[Any], made: Made
) -> None:
    with open_checkpoint(made(name)) as checkpoint:
        content, _ = build_onnx(checkpoint, "fp32")
        V = len(checkpoint.meta.vocab)
    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content)
    inputs = {part.name: part.shape for part in session.get_inputs()}
    outputs = {part.name: part.shape for part in session.get_outputs()}
    after = ["total" if size == "past" else size for size in shape]
    assert inputs == {"ids": ["batch", "time"]} | dict.fromkeys(state, shape)
    assert outputs == {"logits": ["batch", "time", V]} | {f"{it}_after": after for it in state}


@pytest.mark.parametrize("name", ["lstm", "default"])
def test_half_weights_are_stored_as_such_and_computed_with_in_float32(
    name: str, made: Made, tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(made(name), "np") as file:
        metadata = file.metadata()
    weights = {
        key: it.astype(np.float16).astype(np.float32) if it.ndim > 1 else it
        for key, it in load_file(made(name)).items()
    }
    save_file(weights, tmp_path / "rounded.safetensors", metadata)
    model = library.load(tmp_path / "rounded.safetensors")
    ids = model.vocab.encode(TEXTS[0]).astype(np.int64)[None]
    logits = read(session_of(made(name), "fp16"), ids, SPLITS[0])
    np.testing.assert_allclose(logits[0], model.logits(TEXTS[0]), atol=1e-4)
    with open_checkpoint(made(name)) as checkpoint:
        sizes = {it: len(build_onnx(checkpoint, it)[0]) for it in ("fp16", "fp32")}
        graph = onnx.load_from_string(build_onnx(checkpoint, "fp16")[0]).graph
    types = {onnx.TensorProto.DataType.Name(it.data_type) for it in graph.initializer}
    assert "FLOAT16" in types
    assert sizes["fp16"] < sizes["fp32"] - sum(it.size for it in weights.values())


HOSTILE = "T\u202e\x1b</script>\n\0\ue000\U0010ffff"


def test_the_metadata_has_the_vocabulary_and_the_network_and_no_folder(
    made: Made, tiny_text: Path
) -> None:
    vocab = "".join(dict.fromkeys(HOSTILE))
    path = made("default", vocab)
    about = session_of(path).get_modelmeta().custom_metadata_map
    values = {key.removeprefix("charlm."): json.loads(value) for key, value in about.items()}
    assert values["vocab"] == vocab
    assert (values["context"], values["unit"], values["limited"]) == (24, "char", False)
    assert values["beginning"] == "\n"
    assert values["model"] == library.load(path).config.model.model_dump()
    assert str(tiny_text.parent) not in str(about)
    assert all(value.isascii() for value in about.values())


# --- the example --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "prompt", "length"),
    [
        ("lstm", {}, "The ", 40),
        ("default", {}, "The ", 70),  # past the context of 24, several times
        ("biases", {}, "my lord fears the old king and sings to no one. " * 2, 30),
        ("gru", {"unit": "byte"}, "é", 30),
        ("gpt2", {"vocab_size": 9}, "The 7", 30),
    ],
)
def test_the_example_samples_what_charlm_samples(
    name: str, data: dict[str, Any], prompt: str, length: int, made: Made, tmp_path: Path
) -> None:
    vocab = "".join(map(chr, range(256))) if "unit" in data else "The k\ufffd\nsy" if data else None
    path, out = made(name, vocab, **data), tmp_path / "model.onnx"
    with open_checkpoint(path) as checkpoint:
        out.write_bytes(build_onnx(checkpoint, "fp32")[0])
    example = ROOT / "docs" / "sample_onnx.py"
    ended = python(example, out, prompt, str(length), "0")
    assert (ended.returncode, ended.stderr) == (0, "")
    model = library.load(path)
    text = prompt + model.sample(prompt, length=length, temperature=0)
    if model.vocab.unit == "byte":
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    shown = "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
    assert ended.stdout == f"{shown}\n"


def test_the_example_samples_at_a_temperature_without_a_prompt(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    with open_checkpoint(made("rnn")) as checkpoint:
        out.write_bytes(build_onnx(checkpoint, "fp32")[0])
    ended = python(ROOT / "docs" / "sample_onnx.py", out, "", "50", "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout) == 51


# --- mistakes -----------------------------------------------------------------------------------


def test_a_file_with_other_logits_is_not_written(
    charlm: Charlm, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "RMS_EPS", 0.1)
    result = charlm("export", made("default"), "--format", "onnx", "--out", tmp_path / "a.onnx")
    assert result.status == 2
    assert "exports this model wrongly: a logit differs by" in result.err
    assert len(result.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(
    missing: str, charlm: Charlm, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    result = charlm("export", "lstm", "--format", "onnx")
    assert result.status == 2
    assert result.err == (
        f"charlm: --format onnx needs the package {missing}; get it with the extra `export` of "
        "charlm: pip install '.[export]' -c constraints.txt\n"
    )


def test_a_model_that_is_too_large_for_the_format_is_refused(
    charlm: Charlm, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 10_000)
    result = charlm("export", "lstm", "--format", "onnx")
    assert result.status == 2
    assert "its weights in fp32 have 0.0 GB, and an ONNX file at most 0 GB" in result.err


def test_the_file_is_beside_the_checkpoint(charlm: Charlm, workplace: Path) -> None:
    result = charlm("export", "lstm", "--format", "onnx")
    out = Path("checkpoints/lstm/model.onnx")
    assert (result.status, result.err) == (0, "")
    assert f"model  {out} (0.0 MB, weights in fp32)\n" in result.out
    assert "check  the logits of onnxruntime differ from charlm's by " in result.out
    before = out.read_bytes()
    again = charlm("export", "lstm", "--format", "onnx")
    assert again.status == 2
    assert "already exists; use --force to overwrite it, or --out FILE" in again.err
    assert charlm("export", "lstm", "--format", "onnx", "--force").status == 0
    assert out.read_bytes() == before
