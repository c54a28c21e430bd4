"""One Model in several threads, and in forked processes, samples what it samples alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from charlm.sampling.engines import ENGINES
from tests.api.test_model import loaded
from tests.conftest import TinyRun, python

THREADS, SEEDS = 4, range(12)
each_engine = pytest.mark.parametrize("engine", ENGINES)
each_kind = pytest.mark.parametrize("kind", ["lstm", "mlp", "gpt"])


@each_engine
@each_kind
def test_threads_that_share_a_model_sample_as_one_alone(
    tiny_run: TinyRun, kind: str, engine: str
) -> None:
    model = loaded(tiny_run(kind), engine)

    def work(seed: int) -> tuple[str, float]:
        return model.sample("ANNE:", length=150, seed=seed), model.score("The old king").nats

    alone = [work(seed) for seed in SEEDS]
    assert len({text for text, _ in alone}) > 1
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, SEEDS)) == alone


@each_engine
@each_kind
def test_streams_may_take_turns(tiny_run: TinyRun, kind: str, engine: str) -> None:
    model = loaded(tiny_run(kind), engine)
    alone = [model.sample(length=40, seed=seed) for seed in (1, 2)]
    streams = [model.stream(length=40, seed=seed) for seed in (1, 2)]
    turns = list(zip(*streams, strict=True))
    assert ["".join(chars) for chars in zip(*turns, strict=True)] == alone


FORK = """
import os, signal, sys
from charlm import load

model = load(sys.argv[1], engine=sys.argv[2], device="cpu")
if sys.argv[2] == "native":
    chooser = model._network._kernel.threads[1]
    chooser.count = chooser._other = 2  # always two threads
alone = [model.sample("ANNE:", length=60, seed=seed) for seed in range(3)]
children = []
for seed, text in enumerate(alone):
    if (pid := os.fork()) == 0:
        signal.alarm(60)  # ends a child that hangs
        os._exit(model.sample("ANNE:", length=60, seed=seed) != text)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
assert [model.sample("ANNE:", length=60, seed=seed) for seed in range(3)] == alone
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@each_engine
def test_a_fork_samples_the_same(tiny_run: TinyRun, engine: str) -> None:
    run = tiny_run("lstm")
    loaded(run, engine)  # the test is skipped without a compiler
    threads = "1" if engine == "torch" else "2"  # PyTorch does not support a fork after several
    env = {"OMP_NUM_THREADS": threads, "CHARLM_CACHE": os.environ["CHARLM_CACHE"]}
    ended = python("-W", "ignore::DeprecationWarning", "-c", FORK, run, engine, env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
