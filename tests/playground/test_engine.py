"""The networks in JavaScript against those in NumPy, for every setting that changes the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from charlm.config import SampleConfig
from charlm.playground.page import WORKER, _read
from charlm.playground.weights import Arrays, pack, unpack
from charlm.sampling.filters import distribution
from charlm.sampling.numpy import build_network
from tests.insight.browser import Page
from tests.insight.helpers import network, random_ids
from tests.insight.pages import needs_chromium

KINDS = {"|i1": "Int8Array", "<u2": "Uint16Array", "<f4": "Float32Array"}
RECURRENT: list[dict[str, Any]] = [
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
CASES = [(kind, each, "fp32") for kind in ("rnn", "gru", "lstm") for each in RECURRENT]
CASES += [("gpt", each, "fp32") for each in GPT]
CASES += [(kind, {}, how) for kind in ("rnn", "gru", "lstm", "gpt") for how in ("int8", "fp16")]


def engine() -> str:
    """The scripts of the worker without its messages."""
    return "".join(map(_read, WORKER)).partition("const takes =")[0]


def in_javascript(arrays: Arrays) -> str:
    """`arrays` as an object of JavaScript, as the worker decodes them."""
    parts = []
    for name, array in arrays.items():
        if not name.endswith(".scales"):
            values = f"{KINDS[array.dtype.str]}.from({json.dumps(array.ravel().tolist())})"
            scales = json.dumps(arrays.get(f"{name}.scales", np.zeros(0)).tolist())
            parts.append(f"{json.dumps(name)}: decoded({values}, {scales})")
    return f"{{{', '.join(parts)}}}"


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
        const Network = config.kind === "gpt" ? GPT : Recurrent;
        const network = new Network(config, {model.vocab_size}, {in_javascript(arrays)});
        return {ids.tolist()}.map((id) => {{ network.step(id); return [...network.logits]; }});
    }})()""")
    exact = build_network(model.config, model.vocab_size, unpack(arrays))
    expected = [exact.read(ids[None, t : t + 1])[0] for t in range(len(ids))]
    np.testing.assert_allclose(np.array(rows), expected, atol=1e-4, rtol=1e-4)
    assert np.std(expected) > 0.01  # the network is not constant


@needs_chromium
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.5, 3, None), (2.0, None, 0.7), (0.8, 5, 0.5), (0.0, None, None)],
)
def test_characters_are_drawn_with_the_probabilities_of_the_filters(
    page: Page, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    logits = np.random.default_rng(1).normal(0, 2, 9)
    config = SampleConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    weights = distribution(logits, config)
    settings = json.dumps({"temperature": temperature, "topK": top_k, "topP": top_p})
    grid = 2000  # uniform numbers, evenly spaced
    drawn = page.run(f"""(() => {{ {engine()}
        const logits = Float64Array.from({logits.tolist()});
        const draws = [];
        for (let i = 0; i < {grid}; i++) draws.push(draw(logits, {settings}, i / {grid}));
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
