"""One Model in several threads, and in forked processes, samples what it samples alone."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from charlm import load
from charlm.errors import CharlmError
from charlm.kernels.build import NoKernelError
from charlm.sampling.engines import ENGINES
from tests.conftest import TinyRun, python

THREADS, SEEDS = 4, range(12)
each_engine = pytest.mark.parametrize("engine", ENGINES)
each_kind = pytest.mark.parametrize("kind", ["lstm", "gpt"])


def skip_unless_available(run: Path, engine: str) -> None:
    try:
        load(run, engine=engine, device="cpu")
    except CharlmError as error:
        if not isinstance(error.__cause__, NoKernelError):
            raise
        pytest.skip(str(error))


@each_engine
@each_kind
def test_threads_that_share_a_model_sample_as_one_alone(
    tiny_run: TinyRun, kind: str, engine: str
) -> None:
    skip_unless_available(tiny_run(kind), engine)
    model = load(tiny_run(kind), engine=engine, device="cpu")

    def work(seed: int) -> tuple[str, float]:
        return model.sample("ANNE:", length=60, seed=seed), model.score("The old king").nats

    alone = [work(seed) for seed in SEEDS]
    assert len({text for text, _ in alone}) > 1
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, SEEDS)) == alone


@each_engine
@each_kind
def test_streams_may_take_turns(tiny_run: TinyRun, kind: str, engine: str) -> None:
    skip_unless_available(tiny_run(kind), engine)
    model = load(tiny_run(kind), engine=engine, device="cpu")
    alone = [model.sample(length=40, seed=seed) for seed in (1, 2)]
    streams = [model.stream(length=40, seed=seed) for seed in (1, 2)]
    turns = list(zip(*streams, strict=True))
    assert ["".join(chars) for chars in zip(*turns, strict=True)] == alone


FORK = """
import os, sys
from charlm import load

model = load(sys.argv[1], engine=sys.argv[2], device="cpu")
alone = [model.sample("ANNE:", length=60, seed=seed) for seed in range(3)]
for seed, text in enumerate(alone):
    if (pid := os.fork()) == 0:
        os._exit(model.sample("ANNE:", length=60, seed=seed) != text)
    assert os.waitpid(pid, 0)[1] == 0, seed
assert [model.sample("ANNE:", length=60, seed=seed) for seed in range(3)] == alone
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@each_engine
def test_a_fork_samples_the_same(tiny_run: TinyRun, engine: str) -> None:
    skip_unless_available(tiny_run("lstm"), engine)
    run = tiny_run("lstm")
    env = {"OMP_NUM_THREADS": "1", "CHARLM_CACHE": os.environ["CHARLM_CACHE"]}
    ended = python("-W", "ignore::DeprecationWarning", "-c", FORK, run, engine, env=env)
    assert (ended.returncode, ended.stderr) == (0, "")
