"""The engines compared with the models for every option, and the distribution of the draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from charlm.checkpoint.format import BEST
from charlm.checkpoint.read import open_checkpoint, read_meta
from charlm.config import GPTConfig, MLPConfig, ModelConfig, RecurrentConfig, SampleConfig
from charlm.data.vocab import Vocab
from charlm.errors import DeviceError
from charlm.machine import instruction_set
from charlm.models import CharModel, build_model
from charlm.sampling.generate import choose, sample_texts
from charlm.sampling.numpy import build_network, gpt, mlp, recurrent
from charlm.sampling.text import SampleSpec
from charlm.sampling.torch import TorchEngine
from tests.conftest import TinyRun
from tests.sampling import assert_distributed, native_engine, numpy_engine
from tests.training.helpers import saved_model

V, CONTEXT = 7, 16
RECURRENT = [
    RecurrentConfig(kind=kind, n_layer=layers, hidden_size=8, input=input_, tie_weights=tied)
    for kind, layers, (input_, tied) in itertools.product(
        ("rnn", "gru", "lstm"),
        (1, 3),
        (("embedding", False), ("embedding", True), ("one_hot", False)),
    )
]
MLPS = [
    MLPConfig(n_layer=layers, hidden_size=8, n_embd=3, context=N, input=input_, activation=f)
    for layers, N, input_, f in itertools.product(
        (1, 3), (2, 5, 16), ("embedding", "one_hot"), ("sigmoid", "tanh", "relu")
    )
]
GPTS = [
    GPTConfig.model_validate(
        {"n_layer": 2, "n_head": 2, "n_embd": 8, "context": CONTEXT}
        | dict(zip(("position", "norm", "mlp", "qk_norm", "bias", "tie_weights"), it, strict=True))
    )
    for it in itertools.product(
        ("learned", "sinusoidal", "rope"),
        ("layernorm", "rmsnorm"),
        ("gelu", "relu2", "swiglu"),
        *[(False, True)] * 3,
    )
]


def random_model(config: ModelConfig, std: float = 0.4, vocab_size: int = V) -> CharModel:
    model = build_model(config, vocab_size, seed=1).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std, generator=generator)
    return model


EngineOf = Callable[[CharModel], Any]
each_engine = pytest.mark.parametrize(
    "engine_of", [numpy_engine, TorchEngine, native_engine], ids=["numpy", "torch", "native"]
)


def assert_logits(engine_of: EngineOf, model: CharModel) -> None:
    """Compare the logits of three texts with the model's: read at once, in parts, and one by one,
    with a select in between."""
    ids = np.random.default_rng(0).integers(0, model.vocab_size, (3, 12))
    with torch.no_grad():
        expected = model(torch.from_numpy(ids))[0].numpy()  # (B, T, V)
    tolerance = 1e-5 * max(1.0, np.abs(expected).max())
    engine = engine_of(model)
    np.testing.assert_allclose(engine.fresh().read(ids), expected[:, -1], 0, tolerance)
    np.testing.assert_allclose(engine.read(ids[:, :4]), expected[:, 3], 0, tolerance)
    np.testing.assert_allclose(engine.read(ids[:, 4:7]), expected[:, 6], 0, tolerance)
    engine.select([2, 0, 0])
    for t in range(7, 12):
        logits = engine.read(ids[[2, 0, 0], t : t + 1])
        np.testing.assert_allclose(logits, expected[[2, 0, 0], t], 0, tolerance)


@each_engine
@pytest.mark.parametrize("config", [*RECURRENT, *MLPS], ids=str)
def test_a_network_with_a_state_has_the_logits_of_its_model(
    config: ModelConfig, engine_of: EngineOf
) -> None:
    assert_logits(engine_of, random_model(config))


@each_engine
@pytest.mark.parametrize("config", RECURRENT[:9:4], ids=str)
def test_a_network_without_a_table_has_the_logits_of_its_model(
    config: RecurrentConfig, engine_of: EngineOf
) -> None:
    model = random_model(config.model_copy(update={"hidden_size": 64}), 0.1, vocab_size=17_000)
    network = numpy_engine(model)
    assert isinstance(network, recurrent.Recurrent)
    assert network.table is None
    assert_logits(engine_of, model)


@each_engine
@pytest.mark.parametrize("input_", ["embedding", "one_hot"])
def test_an_mlp_without_a_table_has_the_logits_of_its_model(
    input_: Any, engine_of: EngineOf
) -> None:
    config = MLPConfig(n_layer=2, hidden_size=64, n_embd=8, context=5, input=input_)
    model = random_model(config, 0.1, vocab_size=17_000)
    network = numpy_engine(model)
    assert isinstance(network, mlp.MLP)
    assert (network.table is None) == (input_ == "embedding")
    assert_logits(engine_of, model)


@each_engine
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope"])
def test_a_gpt_has_the_logits_of_its_model(position: str, engine_of: EngineOf) -> None:
    for config in GPTS:
        if config.position == position:
            assert_logits(engine_of, random_model(config))


@each_engine
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope"])
def test_the_memory_of_a_gpt_grows_with_what_is_read(position: Any, engine_of: EngineOf) -> None:
    """Reading in pieces, and room for some characters at first, do not change the logits."""
    assert gpt.MIN_CAPACITY == gpt.MAX_PIECE == 512
    lengths = (1, 511, 100, 1, 512, 700)
    N = sum(lengths)
    context = N if position == "learned" else 1 << 40  # as a stranger's checkpoint may have it
    config = GPTConfig(n_layer=2, n_head=2, n_embd=8, context=N, position=position)
    model = random_model(config)
    ids = np.random.default_rng(0).integers(0, V, (2, N))
    with torch.no_grad():
        expected = model(torch.from_numpy(ids))[0].numpy()  # (B, T, V)
    model.config = config.model_copy(update={"context": context})
    engine, at = engine_of(model), 0
    for T in lengths:
        at += T
        logits = engine.read(ids[:, at - T : at])
        np.testing.assert_allclose(logits, expected[:, at - 1], 0, 1e-4)
        engine.select([1, 0])
        ids, expected = ids[[1, 0]], expected[[1, 0]]


@pytest.mark.parametrize("config", [RECURRENT[-3], GPTS[0]], ids=lambda it: it.kind)
def test_bf16_changes_logits_little_and_restores_the_precision(config: Any) -> None:
    model, ids = random_model(config, std=0.1), np.random.default_rng(0).integers(0, V, (64, 12))
    exact = TorchEngine(model).read(ids)
    try:
        near = TorchEngine(model, bf16=True).read(ids)
    except DeviceError as error:  # the CPU has no bfloat16 instructions
        assert instruction_set() not in ("amx", "avx512_bf16")
        assert str(error).startswith("precision=bf16: ")  # noqa: PT017
        return
    assert np.abs(near - exact).max() < 0.05 * np.abs(exact).max()
    assert torch.get_float32_matmul_precision() == "highest"


def test_gelu_is_x_times_the_normal_cumulative_distribution() -> None:
    x = np.linspace(-6, 6, 2001)
    expected = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x]
    np.testing.assert_allclose(gpt._gelu(x, np), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_far_past_the_context_the_nats_are_those_of_the_model(kind: str) -> None:
    """The model reads, at each character, the window of the documented rule."""
    config: Any = RECURRENT[-3] if kind == "lstm" else GPTS[-1]
    model, vocab = random_model(config), Vocab("\nabcdef")
    length = 8 * CONTEXT
    spec = SampleSpec(SampleConfig(temperature=1.0), length, scored=True)
    sampled = sample_texts(numpy_engine(model), vocab, vocab.encode(""), spec, 3, [0])
    chunks = [chunk for _, chunk in sampled if chunk]
    assert len(chunks) == length
    window: list[int] = [0]
    for chunk in chunks:
        with torch.no_grad():
            logits = model(torch.tensor([window]))[0][0, -1].double()
        id_ = vocab.chars.index(chunk.text)
        assert chunk.nats == pytest.approx(-float(torch.log_softmax(logits, 0)[id_]), abs=1e-5)
        if model.context and len(window) == model.context:
            window = window[model.context // 2 :]
        window.append(id_)


def test_a_million_draws_have_the_distribution_of_a_trained_model(tiny_run: TinyRun) -> None:
    """At temperature 1, after four prompts; the model computes in float64."""
    path = tiny_run("lstm") / BEST
    meta, n_draws = read_meta(path), 250_000
    prompts = ("The old king", "my lord fear", "A quiet sea ", "CLEO:\nNo one")
    ids = np.stack([meta.vocabulary.encode(prompt).astype(np.int64) for prompt in prompts])
    with open_checkpoint(path) as checkpoint:
        network = build_network(meta.config.model, len(meta.vocab), checkpoint.weights())
    logits = network.read(ids).astype(np.float64)
    model = saved_model(path).double()
    with torch.no_grad():
        exact = model(torch.from_numpy(ids))[0][:, -1].softmax(-1).numpy()
    uniform = np.random.default_rng(4).random((len(prompts), n_draws))
    for row in range(len(prompts)):
        same = np.broadcast_to(logits[row], (n_draws, len(meta.vocab)))
        assert_distributed(choose(same, SampleConfig(temperature=1.0), uniform[row]), exact[row])
