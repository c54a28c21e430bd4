"""The networks in C beside those in numpy: many texts, threads, any CPU, no compiler.

That they compute what the models do, for every option, is in test_networks.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import charlm.api
from charlm.config import GPTConfig, RecurrentConfig
from charlm.errors import CharlmError
from charlm.kernels.build import NoKernelError
from charlm.machine import cpu_features
from charlm.models import build_model
from charlm.sampling.native import NativeNetwork, code, matrix, native, threads
from charlm.sampling.native.threads import FEW, Threads
from charlm.sampling.numpy import Network, build_network
from charlm.sampling.numpy.recurrent import Recurrent
from tests.conftest import TinyRun
from tests.sampling import weights_of

V = 37
CONFIGS = [
    *(RecurrentConfig(kind=kind, n_layer=2, hidden_size=64) for kind in ("rnn", "gru", "lstm")),
    RecurrentConfig(kind="lstm", n_layer=1, hidden_size=96, input="one_hot"),
    RecurrentConfig(kind="gru", n_layer=2, hidden_size=40),  # no whole blocks
    GPTConfig(n_layer=2, n_head=2, n_embd=64, context=48, norm="layernorm", bias=True),
    GPTConfig(n_layer=1, n_head=5, n_embd=50, context=50, mlp="swiglu", position="rope"),
    GPTConfig(n_layer=2, n_head=1, n_embd=32, context=48, mlp="gelu", position="sinusoidal"),
]
each_config = pytest.mark.parametrize("config", CONFIGS, ids=str)
Config = RecurrentConfig | GPTConfig
Floats = NDArray[np.floating]


def network_of(config: Config) -> Network:
    return build_network(config, V, weights_of(build_model(config, V, seed=1)))


def native_of(network: Network) -> NativeNetwork:
    """The network in C; the test is skipped where there is no compiler."""
    try:
        return native(network)
    except NoKernelError as error:
        pytest.skip(str(error))


def in_threads(network: NativeNetwork, count: int) -> NativeNetwork:
    """It always takes so many threads."""
    network._code.threads.default_factory = lambda: Fixed(count)  # type: ignore[attr-defined]
    return network


class Fixed(Threads):
    def __init__(self, count: int) -> None:
        self.now = count

    def took(self, seconds: float, steps: int = 1) -> None:
        pass


def read(network: Network | NativeNetwork, ids: NDArray[np.int64]) -> list[Floats]:
    """Logits while ids (B, 16) are read in stretches, and other texts selected on the way."""
    network, B = network.fresh(), len(ids)
    found = [network.read(ids[:, :5]), network.read(ids[:, 5:6])]
    texts = [*range(1, B), 0]
    network.select(texts)
    ids = ids[texts]
    found += [network.read(ids[:, t : t + 1]) for t in range(6, 10)]
    return [*found, network.read(ids[:, 10:])]


def ids_of(B: int) -> NDArray[np.int64]:
    return np.random.default_rng(B).integers(0, V, (B, 16))


@each_config
def test_many_texts_are_as_in_numpy(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 8 texts on, products are of bfloat16 pairs where the CPU has AMX."""
    monkeypatch.setattr("charlm.sampling.native.recurrent.STRETCH", 3)
    network = network_of(config)
    compiled = native_of(network)
    for B in (1, 7, 8, 33, 64, 70):
        for ours, expected in zip(read(compiled, ids_of(B)), read(network, ids_of(B)), strict=True):
            tolerance = (2e-5 if B >= matrix.AMX_MIN_ROWS else 2e-6) * np.abs(expected).max()
            np.testing.assert_allclose(ours, expected, 0, tolerance)


@each_config
def test_threads_change_nothing(config: Config) -> None:
    network = network_of(config)
    for B in (1, 5, 40, 130):
        one, *others = (read(in_threads(native_of(network), n), ids_of(B)) for n in (1, 2, 3, 7))
        for other in others:
            for ours, expected in zip(other, one, strict=True):
                np.testing.assert_array_equal(ours, expected)


@each_config
def test_a_text_beside_a_few_others_is_as_alone(config: Config) -> None:
    compiled, ids = native_of(network_of(config)), ids_of(7)
    together = compiled.fresh().read(ids)
    for row in range(7):
        np.testing.assert_array_equal(
            compiled.fresh().read(ids[row : row + 1]), together[row : row + 1]
        )


@each_config
def test_what_is_fresh_begins_anew_and_leaves_the_other_alone(config: Config) -> None:
    """Also when the first of them makes the tiles that they share, and is gone then."""
    compiled, ids = native_of(network_of(config)), ids_of(20)
    expected = compiled.fresh().read(ids)
    going_on = compiled.fresh()
    going_on.read(ids[:, :8])
    np.testing.assert_array_equal(compiled.fresh().read(ids), expected)
    np.testing.assert_allclose(going_on.read(ids[:, 8:]), expected, 0, 1e-5)


@each_config
def test_a_text_alone_is_the_same_whatever_was_written_before(config: Config) -> None:
    compiled, ids = native_of(network_of(config)), ids_of(9)
    before = compiled.fresh().read(ids[:1])
    compiled.fresh().read(ids)  # makes the tiles
    np.testing.assert_array_equal(compiled.fresh().read(ids[:1]), before)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_many_texts_are_right_without_a_table_too(
    kind: Literal["rnn", "gru", "lstm"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charlm.sampling.numpy.recurrent.SMALL_TABLE", 0)
    network = network_of(RecurrentConfig(kind=kind, n_layer=1, hidden_size=32))
    assert isinstance(network, Recurrent)
    assert network.table is None
    compiled = native_of(network)
    for B in (2, 40, 70):
        for ours, expected in zip(read(compiled, ids_of(B)), read(network, ids_of(B)), strict=True):
            np.testing.assert_allclose(ours, expected, 0, 2e-5 * np.abs(expected).max())


@each_config
def test_broken_weights_are_not_hidden(config: Config) -> None:
    """What is not a number makes logits that are none, wherever it stands."""
    weights = weights_of(build_model(config, V, seed=1))
    for name in weights:
        broken = weights | {name: np.full_like(weights[name], np.nan)}
        compiled = native_of(build_network(config, V, broken))
        for B in (1, 9):
            assert not np.isfinite(compiled.fresh().read(ids_of(B)[:, :4])).all(), name


@pytest.mark.parametrize("flags", [(), ("-mavx2", "-mfma"), ("-mavx512f",)], ids=str)
@each_config
def test_the_code_is_right_for_other_cpus(
    config: Config, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    has = cpu_features()
    if not {flag.removeprefix("-m") for flag in flags} <= has:
        pytest.skip("this CPU cannot run it")
    network = network_of(config)
    native_of(network)
    monkeypatch.setattr(code, "compiler_flags", lambda: flags)
    compiled = native(network)
    for B in (1, 9):
        for ours, expected in zip(read(compiled, ids_of(B)), read(network, ids_of(B)), strict=True):
            np.testing.assert_allclose(ours, expected, 0, 2e-6 * np.abs(expected).max())


# --- how many threads ------------------------------------------------------------------------


def chosen(seconds: Callable[[int], float], chooser: Threads, steps: int) -> list[int]:
    """How many threads were taken, when a step with n takes seconds(n)."""
    found = []
    for _ in range(steps):
        found.append(chooser.now)
        chooser.took(seconds(chooser.now))
    return found


def test_all_threads_are_taken_where_they_are_faster() -> None:
    found = chosen(lambda n: 1e-3 / n, Threads(4), 20_000)
    assert found.count(4) > 0.9 * len(found)
    assert set(found) == {1, 4}  # the other is tried now and then


def test_one_thread_is_taken_where_others_only_wait() -> None:
    found = chosen(lambda n: 1e-3 * n, Threads(4), 20_000)
    assert found.count(1) > 0.9 * len(found)


def test_the_choice_follows_the_machine() -> None:
    chooser = Threads(2)
    idle, busy = (lambda n: 1e-3 / n), (lambda n: 1e-3 if n == 1 else 20e-3)
    chosen(idle, chooser, 5_000)
    found = chosen(busy, chooser, 5_000)
    assert found[-1000:].count(1) > 900
    found = chosen(idle, chooser, 20_000)
    assert found[-2000:].count(2) > 1800


def test_a_single_core_tries_nothing() -> None:
    assert set(chosen(lambda _: 1e-3, Threads(1), 100 * FEW)) == {1}


@pytest.mark.parametrize(("wanted", "count"), [("3", 3), ("4,2", 4)])
def test_the_users_own_number_of_threads_stands(
    wanted: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert max(chosen(lambda n: 1 / n, Threads(), 1000)) == count
    assert threads._allowed() == count


# --- without a compiler ----------------------------------------------------------------------


def test_without_a_compiler_numpy_writes(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = charlm.load(tiny_run("lstm")).sample(length=50, seed=1)
    monkeypatch.setenv("CC", "false")
    monkeypatch.setattr(code, "compiler_flags", lambda: ("-DOTHER",))  # not compiled before
    model = charlm.load(tiny_run("lstm"))
    assert model.engine == "numpy"
    assert model.sample(length=50, seed=1) == with_it
    with pytest.raises(CharlmError, match=r"^engine=native: false fails: .*; use engine=auto$"):
        charlm.load(tiny_run("lstm"), engine="native")
    monkeypatch.setenv("CC", "missing-cc")
    with pytest.raises(CharlmError, match=r"^engine=native: there is no missing-cc; "):
        charlm.load(tiny_run("lstm"), engine="native")
