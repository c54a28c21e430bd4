"""The native engine compared with numpy: many texts, threads, older CPUs, and no compiler.

test_networks.py compares it with the models, for every option. Tests that need a C compiler are
skipped without one; see tests.sampling.compiled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import charlm.api
from charlm.config import GPTConfig, MLPConfig, RecurrentConfig
from charlm.errors import CharlmError
from charlm.kernels.build import NoKernelError
from charlm.kernels.variants import Variant
from charlm.models import build_model
from charlm.sampling.native import NativeNetwork, code
from charlm.sampling.native.matrix import MIN_ROWS
from charlm.sampling.native.threads import MAX_THREADS, ThreadChooser
from charlm.sampling.numpy import Network, build_network
from charlm.sampling.numpy.mlp import MLP
from charlm.sampling.numpy.recurrent import Recurrent
from tests.conftest import TinyRun
from tests.sampling import compiled, weights_of

V = 37
Config = RecurrentConfig | GPTConfig | MLPConfig
CONFIGS: list[Config] = [
    *(RecurrentConfig(kind=kind, n_layer=2, hidden_size=64) for kind in ("rnn", "gru", "lstm")),
    RecurrentConfig(kind="lstm", n_layer=1, hidden_size=96, input="one_hot"),
    RecurrentConfig(kind="gru", n_layer=2, hidden_size=40),  # not a multiple of 16
    GPTConfig(n_layer=2, n_head=2, n_embd=64, context=48, norm="layernorm", bias=True),
    GPTConfig(n_layer=1, n_head=5, n_embd=50, context=50, mlp="swiglu", position="rope"),
    GPTConfig(n_layer=2, n_head=1, n_embd=32, context=48, mlp="gelu", position="sinusoidal"),
    MLPConfig(n_layer=3, hidden_size=64, n_embd=5, context=4),
    MLPConfig(n_layer=1, hidden_size=40, input="one_hot", activation="tanh", context=20),
    MLPConfig(n_layer=2, hidden_size=50, n_embd=8, activation="sigmoid"),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=str)
each_variant = pytest.mark.parametrize("variant", code.variants(), ids=lambda it: it.name)
Floats = NDArray[np.floating]


def network_of(config: Config) -> Network:
    return build_network(config, V, weights_of(build_model(config, V, seed=1)))


def with_threads(network: NativeNetwork, count: int) -> NativeNetwork:
    """The network; it always uses this number of threads."""
    network._kernel.threads.default_factory = lambda: Fixed(count)
    return network


class Fixed(ThreadChooser):
    def __init__(self, count: int) -> None:
        self.count = count

    def record(self, seconds: float, steps: int = 1) -> None:
        pass


def read(network: Network | NativeNetwork, ids: NDArray[np.int64]) -> list[Floats]:
    """The logits of each read while ids (B, 16) are read in parts, with a select in between."""
    network, B = network.fresh(), len(ids)
    logits = [network.read(ids[:, :5]), network.read(ids[:, 5:6])]
    texts = [*range(1, B), 0]
    network.select(texts)
    ids = ids[texts]
    logits += [network.read(ids[:, t : t + 1]) for t in range(6, 10)]
    return [*logits, network.read(ids[:, 10:])]


def ids_of(B: int) -> NDArray[np.int64]:
    return np.random.default_rng(B).integers(0, V, (B, 16))


def assert_close(native: NativeNetwork, network: Network, B: int, tolerance: float) -> None:
    """Check the logits of B texts; the tolerance is relative to the largest logit of a read."""
    for ours, expected in zip(read(native, ids_of(B)), read(network, ids_of(B)), strict=True):
        np.testing.assert_allclose(ours, expected, 0, tolerance * np.abs(expected).max())


@each_variant
@each_config
def test_the_logits_of_many_texts_are_those_of_numpy(
    config: Config, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From MIN_ROWS texts on, AMX keeps 16 bits of each number."""
    monkeypatch.setattr(code, "variants", lambda: [variant])
    monkeypatch.setattr("charlm.sampling.native.recurrent.MAX_STEPS", 3)
    network = network_of(config)
    native = compiled(network)
    for B in (1, 7, 8, 33, 64, 70):
        assert_close(native, network, B, 2e-5 if variant.half and B >= MIN_ROWS else 2e-6)


@each_config
def test_the_number_of_threads_does_not_change_the_logits(config: Config) -> None:
    network = network_of(config)
    for B in (1, 5, 40, 130):
        one, *others = (read(with_threads(compiled(network), n), ids_of(B)) for n in (1, 2, 3, 7))
        for other in others:
            for ours, expected in zip(other, one, strict=True):
                np.testing.assert_array_equal(ours, expected)


@each_config
def test_below_min_rows_a_text_has_the_same_logits_as_alone(config: Config) -> None:
    native, ids = compiled(network_of(config)), ids_of(MIN_ROWS - 1)
    together = native.fresh().read(ids)
    for row in range(len(ids)):
        alone = native.fresh().read(ids[row : row + 1])
        np.testing.assert_array_equal(alone, together[row : row + 1])


@each_config
def test_fresh_networks_have_separate_states(config: Config) -> None:
    """The first one makes the shared tiles and is freed; the others still use them."""
    native, ids = compiled(network_of(config)), ids_of(20)
    expected = native.fresh().read(ids)
    other = native.fresh()
    other.read(ids[:, :8])
    np.testing.assert_array_equal(native.fresh().read(ids), expected)
    np.testing.assert_allclose(other.read(ids[:, 8:]), expected, 0, 1e-5)


@each_config
def test_a_text_has_the_same_logits_before_and_after_the_tiles_are_made(config: Config) -> None:
    native, ids = compiled(network_of(config)), ids_of(9)
    before = native.fresh().read(ids[:1])
    native.fresh().read(ids)  # makes the tiles, with AMX
    np.testing.assert_array_equal(native.fresh().read(ids[:1]), before)


@pytest.mark.parametrize(
    "config",
    [
        *(RecurrentConfig(kind=kind, hidden_size=32) for kind in ("rnn", "gru", "lstm")),
        MLPConfig(n_layer=2, hidden_size=36, n_embd=5, context=4),
    ],
    ids=lambda it: it.kind,
)
def test_the_logits_without_a_table_are_those_of_numpy(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charlm.sampling.numpy.arrays.SMALL_TABLE", 0)
    network = network_of(config)
    assert isinstance(network, Recurrent | MLP)
    assert network.table is None
    native = compiled(network)
    for B in (2, 40, 70):
        assert_close(native, network, B, 2e-5)


@each_config
def test_nan_in_any_weight_reaches_the_logits(config: Config) -> None:
    weights = weights_of(build_model(config, V, seed=1))
    for name in weights:
        broken = weights | {name: np.full_like(weights[name], np.nan)}
        native = compiled(build_network(config, V, broken))
        for B in (1, 9):
            assert not np.isfinite(native.fresh().read(ids_of(B)[:, :4])).all(), name


@each_variant
def test_few_and_many_rows_have_the_functions_of_numpy_at_any_size(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes below, at and above a multiple of the vectors and blocks of every variant."""
    monkeypatch.setattr(code, "variants", lambda: [variant])
    for D in (1, 5, 15, 17, 31, 33, 47, 49, 95, 97):
        network = network_of(RecurrentConfig(kind="gru", n_layer=2, hidden_size=D))
        native = compiled(network)
        for B in (3, 17):
            assert_close(native, network, B, 2e-5 if variant.half and B >= MIN_ROWS else 2e-6)


# --- the number of threads -------------------------------------------------------------------


def chosen(seconds: Callable[[int], float], chooser: ThreadChooser, steps: int) -> list[int]:
    """The number of threads at each step, if a step with n threads takes seconds(n)."""
    found = []
    for _ in range(steps):
        found.append(chooser.count)
        chooser.record(seconds(chooser.count))
    return found


def test_all_threads_are_used_if_they_are_faster() -> None:
    found = chosen(lambda n: 1e-3 / n, ThreadChooser(4), 20_000)
    assert found.count(4) > 0.9 * len(found)
    assert set(found) == {1, 4}  # there are trials of one thread


def test_one_thread_is_used_if_more_are_slower() -> None:
    found = chosen(lambda n: 1e-3 * n, ThreadChooser(4), 20_000)
    assert found.count(1) > 0.9 * len(found)
    assert set(found) == {1, 4}  # there are trials of all threads


def test_the_choice_changes_with_the_load_of_the_machine() -> None:
    chooser = ThreadChooser(2)
    idle, busy = (lambda n: 1e-3 / n), (lambda n: 1e-3 if n == 1 else 20e-3)
    chosen(idle, chooser, 5_000)
    found = chosen(busy, chooser, 5_000)
    assert found[-1000:].count(1) > 900
    found = chosen(idle, chooser, 20_000)
    assert found[-2000:].count(2) > 1800


@pytest.mark.parametrize(
    ("value", "count"), [("1", 1), ("3", 3), ("4,2", 4), ("99", MAX_THREADS), ("", 5), ("x", 5)]
)
def test_the_limit_is_omp_num_threads_or_the_usable_cpus(
    value: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    monkeypatch.setattr("charlm.sampling.native.threads.usable_cpus", lambda: 5)
    assert set(chosen(lambda n: 1 / n, ThreadChooser(), 1000)) == {1, count}


# --- the variant -----------------------------------------------------------------------------

OTHER = Variant("other", ("-DOTHER",))  # not in the cache


def test_a_variant_that_does_not_compile_is_replaced_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = network_of(CONFIGS[0])
    expected = compiled(network).read(ids_of(3))
    portable = code.variants()[-1]
    unknown = Variant("unknown", ("-munknown-instructions",))
    monkeypatch.setattr(code, "variants", lambda: [unknown, portable])
    np.testing.assert_allclose(compiled(network).read(ids_of(3)), expected, 0, 1e-5)
    monkeypatch.setattr(code, "variants", lambda: [unknown, OTHER])
    monkeypatch.setenv("CC", "false")
    with pytest.raises(NoKernelError, match="false fails"):
        compiled(network)


# --- without a compiler ----------------------------------------------------------------------


def test_without_a_compiler_numpy_samples_the_same_text(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = charlm.load(tiny_run("lstm")).sample(length=50, seed=1)
    monkeypatch.setattr(code, "variants", lambda: [OTHER])
    for compiler, reason in (
        ("false", "false fails: "),
        ("missing-cc", "the compiler missing-cc is"),
    ):
        monkeypatch.setenv("CC", compiler)
        model = charlm.load(tiny_run("lstm"))
        assert model.engine == "numpy"
        assert model.sample(length=50, seed=1) == expected
        with pytest.raises(CharlmError, match=rf"^engine=native: {reason}.*; use engine=auto$"):
            charlm.load(tiny_run("lstm"), engine="native")


def test_a_compiler_that_fails_does_not_skip_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "variants", lambda: [OTHER])
    monkeypatch.setenv("CC", "false")
    with pytest.raises(NoKernelError, match="false fails"):
        compiled(network_of(CONFIGS[0]))
    monkeypatch.setenv("CC", "/nonexistent/cc")
    with pytest.raises(pytest.skip.Exception, match="there is no C compiler"):
        compiled(network_of(CONFIGS[0]))
