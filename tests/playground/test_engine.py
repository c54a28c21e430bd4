"""The networks in JavaScript against those in NumPy, for every setting that changes the result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm.config import SampleConfig
from charlm.page.document import read_parts
from charlm.playground.page import FOLDER, WORKER
from charlm.playground.weights import Arrays, pack, unpack
from charlm.sampling.filters import PENALTY_WINDOW, distribution
from charlm.sampling.numpy import build_network
from tests.conftest import ROOT
from tests.insight.browser import Page
from tests.insight.helpers import KINDS, RECURRENT, network, random_ids
from tests.insight.pages import needs_chromium

AFFINE = "charlm/playground/page/affine.wasm"
TYPES = {"|i1": "Int8Array", "<u2": "Uint16Array", "<f4": "Float32Array"}
CELLS: list[dict[str, Any]] = [
    {},
    {"input": "one_hot"},
    {"tie_weights": True},
    {"n_layer": 1, "dropout": 0.0, "hidden_size": 7},
]
GPT: list[dict[str, Any]] = [
    {},
    {"position": "learned", "norm": "layernorm", "mlp": "gelu", "bias": True, "qk_norm": False},
    {"position": "sinusoidal", "mlp": "swiglu", "tie_weights": True},
    {"position": "learned", "norm": "rmsnorm", "mlp": "swiglu", "bias": True, "n_embd": 6},
    {"position": "sinusoidal", "norm": "layernorm", "n_head": 1},
    {"tie_weights": True, "qk_norm": False, "n_layer": 1},
]
MLP: list[dict[str, Any]] = [
    {"activation": "sigmoid"},
    {"activation": "tanh", "n_layer": 1, "context": 20},
    {"activation": "relu", "input": "one_hot"},
]
CASES = [(kind, each, "fp32") for kind in RECURRENT for each in CELLS]
CASES += [("gpt", each, "fp32") for each in GPT]
CASES += [("mlp", each, "fp32") for each in MLP]
CASES += [(kind, {}, how) for kind in KINDS for how in ("int8", "fp16")]


def engine() -> str:
    """The scripts of the worker without its messages."""
    return read_parts(FOLDER, *WORKER).partition("const takes =")[0]


def in_javascript(arrays: Arrays) -> str:
    """`arrays` as an object of JavaScript, as the worker decodes them."""
    parts = []
    for name, array in arrays.items():
        if not name.endswith(".scales"):
            values = f"{TYPES[array.dtype.str]}.from({json.dumps(array.ravel().tolist())})"
            scales = json.dumps(arrays.get(f"{name}.scales", np.zeros(0)).tolist())
            parts.append(f"{json.dumps(name)}: decoded({values}, {scales})")
    return f"{{{', '.join(parts)}}}"


@pytest.fixture(name="page")
def _blank_page(page: Page) -> Page:
    """An empty page: the one of an earlier test may forbid WebAssembly."""
    page.call("Page.navigate", url="about:blank")
    page.wait_for("location.href === 'about:blank'")
    return page


@needs_chromium
@pytest.mark.parametrize(("kind", "settings", "how"), CASES)
def test_the_logits_are_those_of_numpy(
    page: Page, kind: str, settings: Mapping[str, Any], how: str
) -> None:
    model = network(kind, **settings)
    arrays = pack({name: it.detach().numpy() for name, it in model.named_parameters()}, how)
    ids = random_ids(12)
    rows = page.run(f"""(() => {{ {engine()}
        const config = {json.dumps(model.config.model_dump())};
        const network = networkOf(config, {model.vocab_size}, {in_javascript(arrays)});
        return {ids.tolist()}.map((id) => {{ network.step(id); return [...network.logits]; }});
    }})()""")
    exact = build_network(model.config, model.vocab_size, unpack(arrays))
    expected = [exact.read(ids[None, t : t + 1])[0] for t in range(len(ids))]
    np.testing.assert_allclose(np.array(rows), expected, atol=1e-4, rtol=1e-4)
    assert np.std(expected) > 0.01  # the network is not constant


# --- WebAssembly ------------------------------------------------------------------------------


@needs_chromium
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (4, 7), (5, 8), (9, 33), (64, 65)])
def test_webassembly_computes_the_same_bits_as_javascript(
    page: Page, shape: tuple[int, int]
) -> None:
    rows, columns = shape
    random = np.random.default_rng(rows)
    matrix = random.normal(size=shape).astype(np.float32)
    x = random.normal(size=columns)
    code = list((ROOT / AFFINE).read_bytes())
    fast, plain = page.run(f"""(() => {{ {engine()}
        startWasm(Uint8Array.from({code}), [[2, 3], [{rows}, {columns}]]);
        const other = placed(new Float32Array(6)), x = Float64Array.from({x.tolist()});
        const W = Float32Array.from({matrix.ravel().tolist()}), inWasm = placed(W);
        if (inWasm.buffer === W.buffer || inWasm.buffer !== other.buffer) throw Error("no wasm");
        return [inWasm, W].map((each) => [...affine(each, null, x, new Float64Array({rows}))]);
    }})()""")
    assert fast == plain
    np.testing.assert_allclose(fast, matrix.astype(np.float64) @ x, rtol=1e-12, atol=1e-12)


@needs_chromium
@pytest.mark.parametrize("code", ["[]", "[0, 97, 115, 109, 1, 0, 0, 0]"])
def test_without_webassembly_javascript_computes(page: Page, code: str) -> None:
    found = page.run(f"""(() => {{ {engine()}
        startWasm(Uint8Array.from({code}), [[1, 2]]);
        const W = placed(Float32Array.of(2, 3)), b = Float32Array.of(1);
        return [wasm, ...affine(W, b, Float64Array.of(1, 10), new Float64Array(1))];
    }})()""")
    assert found == [None, 33]


def test_the_webassembly_is_that_of_the_source(tmp_path: Path) -> None:
    built = (ROOT / AFFINE).read_bytes()
    clang = os.environ.get("CLANG", "clang-14")
    if shutil.which(clang) is None or shutil.which("wasm-ld") is None:
        pytest.skip(f"{clang} or wasm-ld is not installed")
    said = subprocess.run([clang, "--version"], capture_output=True, encoding="utf-8", check=True)
    version = said.stdout.partition("version ")[2].split()[0]
    if version.encode() not in built:
        pytest.skip(f"the repository has the result of another version than {version}")
    subprocess.run([ROOT / "scripts" / "build_wasm", tmp_path / "built.wasm"], check=True)
    assert (tmp_path / "built.wasm").read_bytes() == built


# --- from logits to a character ---------------------------------------------------------------


@needs_chromium
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p", "penalty"),
    [
        (1.0, None, None, None, 1.0),
        (0.5, 3, None, None, 1.0),
        (2.0, None, 0.7, None, 1.0),
        (0.8, 5, 0.5, None, 1.0),
        (1.5, None, None, 0.1, 1.0),
        (1.0, None, None, None, 1.8),
        (1.5, 6, 0.9, 0.2, 0.7),
        (0.0, None, None, None, 1.0),
        (0.0, 2, 0.5, 0.5, 30.0),
    ],
)
def test_characters_are_drawn_with_the_probabilities_of_the_filters(
    page: Page,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    penalty: float,
) -> None:
    logits = np.random.default_rng(1).normal(0, 2, 9)
    # the first is no longer recent, and the likeliest and the unlikeliest are
    recent = np.array([1, logits.argmax(), logits.argmin(), *[4] * (PENALTY_WINDOW - 2)])
    config = SampleConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
    )
    weights = distribution(logits, config, recent)
    settings = {"topK": top_k, "topP": top_p, "minP": min_p, "penalty": penalty}
    grid = 2000  # uniform numbers, evenly spaced
    drawn = page.run(f"""(() => {{ {engine()}
        const logits = Float64Array.from({logits.tolist()}), recent = {recent.tolist()};
        const settings = {json.dumps(settings | {"temperature": temperature})}, draws = [];
        for (let i = 0; i < {grid}; i++) draws.push(draw(logits, settings, i / {grid}, recent));
        return Array.from(logits, (_, id) => draws.filter((each) => each === id).length);
    }})()""")
    np.testing.assert_allclose(np.array(drawn) / grid, weights / weights.sum(), atol=2 / grid)


@needs_chromium
def test_the_random_numbers_are_even_and_differ_by_seed_take_and_position(page: Page) -> None:
    numbers = page.run(f"""(() => {{ {engine()}
        const found = [];
        for (let seed = 0; seed < 10; seed++) for (let take = 1; take < 11; take++)
          for (let at = 0; at < 100; at++) found.push(uniform(seed, take, at));
        return found;
    }})()""")
    assert len(set(numbers)) == len(numbers) == 10_000
    counts, _ = np.histogram(numbers, 20, (0, 1))
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500)
    grid = np.array(numbers).reshape(100, 100) - 0.5
    for a, b in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):  # neighbours are unrelated
        assert abs(np.mean(a * b) * 12) < 0.05


@needs_chromium
@pytest.mark.parametrize("context", [1, 2, 7, 16])
def test_the_windows_are_those_of_the_evaluation(page: Page, context: int) -> None:
    from charlm.evaluation.windows import stride_of, window_start

    starts = page.run(f"""(() => {{ {engine()}
        return Array.from({{ length: 60 }}, (_, n) => windowStart(n, {context}));
    }})()""")
    assert starts == [window_start(n, context, stride_of(context)) for n in range(60)]
