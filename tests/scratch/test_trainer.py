"""What the trainer reads, measures and samples, and that every model learns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from charlm.scratch import Array, Ids, State, Weights
from charlm.scratch.__main__ import MODELS
from charlm.scratch.functions import cross_entropy
from charlm.scratch.gpt import GPT
from charlm.scratch.lstm import LSTM
from charlm.scratch.sgd import SGD, Adam
from charlm.scratch.text import Text
from charlm.scratch.trainer import Trainer, evaluate, sample

V = 5
RNG = np.random.default_rng(1)


class Recorder:
    """A model that records what it reads. Its state is the character before."""

    context = None

    def __init__(self) -> None:
        self.weights: Weights = {}
        self.read: list[tuple[Ids, State]] = []

    def forward(self, ids: Ids, state: State = ()) -> tuple[Array, State]:
        self.read.append((ids, state))
        return np.zeros((*ids.shape, 100)), (ids[:, -1],)

    def backward(self, d_logits: Array) -> Weights:
        self.targets = d_logits.argmin(axis=-1)  # softmax - one_hot is negative there only
        return {}


def test_the_trainer_reads_every_sequence_from_its_start_and_carries_the_state() -> None:
    recorder, B, T = Recorder(), 3, 4
    trainer = Trainer(recorder, SGD(), np.arange(35), B, T)  # 3 sequences of 11
    rows = np.arange(33).reshape(B, 11)
    ends = [(0, 4), (4, 8), (8, 10), (0, 4)]  # the last piece is shorter; then it begins again
    for start, end in ends:
        trainer.step(0.1)
        ids, state = recorder.read[-1]
        np.testing.assert_array_equal(ids, rows[:, start:end])
        np.testing.assert_array_equal(recorder.targets, rows[:, start + 1 : end + 1])
        if start:
            np.testing.assert_array_equal(state[0], rows[:, start - 1])
        else:
            assert state == ()


def test_a_text_shorter_than_a_sequence_is_one_sequence() -> None:
    recorder = Recorder()
    Trainer(recorder, SGD(), np.arange(9), 16, 64).step(0.1)
    np.testing.assert_array_equal(recorder.read[0][0], [np.arange(8)])


def test_evaluate_gives_the_mean_over_all_characters() -> None:
    model = LSTM.random(RNG, V, D=6)
    ids = RNG.integers(0, V, 61)
    whole, _ = model.forward(ids[None, :-1])
    assert evaluate(model, ids, 100) == pytest.approx(cross_entropy(whole, ids[None, 1:])[0])
    pieces = [model.forward(row[None, :-1])[0] for row in ids[:60].reshape(6, 10)]
    expected = cross_entropy(np.concatenate(pieces), ids[:60].reshape(6, 10)[:, 1:])[0]
    assert evaluate(model, ids, 9) == pytest.approx(expected)  # 6 sequences of 9 and a target


def test_samples_have_the_frequencies_that_the_model_predicts() -> None:
    model = LSTM.random(RNG, V, D=6)
    for name, weight in model.weights.items():
        model.weights[name] = np.zeros_like(weight)
    model.weights["head.bias"] = np.log(np.arange(1, V + 1))
    counts = Counter(sample(model, RNG, 0, 5000))
    for i in range(V):  # 15 = 1 + 2 + 3 + 4 + 5
        assert counts[i] / 5000 == pytest.approx((i + 1) / 15, abs=0.03)


def test_a_gpt_writes_more_than_its_context() -> None:
    written = sample(GPT.random(RNG, V, D=4, L=1, H=2, context=8), RNG, 0, 30)
    assert len(written) == 30
    assert set(written) <= set(range(V))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_what_follows_two_characters(name: str) -> None:
    """In this text a character decides nothing, and two characters decide the next one."""
    cycle = [0, 0, 1, 0, 2, 1, 1, 2, 2]  # every pair of 0, 1, 2 once
    model = MODELS[name](np.random.default_rng(1), 3)
    trainer = Trainer(model, Adam(), np.array(cycle * 40), 4, 16)
    before = trainer.step(0.003)
    for _ in range(80):
        after = trainer.step(0.003)
    assert before > 0.9  # ln 3 = 1.1 without knowledge
    assert after < 0.2


def test_a_text_becomes_numbers_and_back() -> None:
    text = Text("hello, world")
    assert text.chars == sorted(set("hello, world"))
    assert text.V == 9
    assert [text.chars[i] for i in text.ids] == [*"hello, world"]
    assert text.decode(text.encode("we hold")) == "we hold"
    assert (text.train.tolist(), text.rest.tolist()) == (
        text.ids[:10].tolist(),
        text.ids[10:].tolist(),
    )


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes("é\r\na".encode())
    assert Text.read(str(tmp_path / "text.txt")).chars == ["\n", "a", "é"]
