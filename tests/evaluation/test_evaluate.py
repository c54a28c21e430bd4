"""Evaluation against simple loops, for each protocol."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.config import EvalConfig
from charlm.data.corpus import TextIds
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.evaluation import evaluate as module
from charlm.evaluation.evaluate import InterruptedEvaluationError, Score, evaluate
from charlm.models import CharModel, State
from charlm.randomness import generator
from charlm.sampling.engine import Reader
from charlm.sampling.torch import TorchEngine
from tests.training.helpers import CARRYING, KINDS, decided_model

V = 7
STREAM = EvalConfig()
WINDOWS = EvalConfig(protocol="windows", window=6, n_windows=9)


def make_model(kind: str, context: int = 8, **extra: Any) -> CharModel:
    return decided_model(kind, V, context, **extra)


def text(n: int, seed: int = 0) -> Ids:
    return np.random.default_rng(seed).integers(0, V, n).astype(np.uint8)


def nll(logits: torch.Tensor, target: int) -> float:
    """The negative log-likelihood of one character, from one row of logits."""
    return -float(F.log_softmax(logits.double(), dim=-1)[target])


def by_sampling_logits(model: CharModel, ids: Ids) -> float:
    """The loss of a text with the logits that sampling would draw each character from."""
    reader = Reader(TorchEngine(model))
    return sum(
        nll(torch.from_numpy(reader.read(np.array([[now]]))[0]), int(then))
        for now, then in itertools.pairwise(ids)
    )


@torch.no_grad()
def one_by_one(model: CharModel, ids: Ids) -> float:
    """The loss of a recurrent model that reads one character at a time."""
    model.eval()
    state: State | None = None
    total = 0.0
    for now, then in itertools.pairwise(ids):
        logits, state = model(torch.tensor([[int(now)]]), state)
        total += nll(logits[0, 0], int(then))
    return total


@torch.no_grad()
def by_windows(model: CharModel, ids: Ids, context: int) -> tuple[float, list[int]]:
    """The loss of a GPT with a window of its own for each character, and the scored positions."""
    model.eval()
    stride = context - context // 2
    total, scored = 0.0, []
    for target in range(1, len(ids)):
        start = max(0, -(-(target - context) // stride)) * stride
        logits, _ = model(torch.from_numpy(ids[start:target].astype(np.int64))[None], None)
        total += nll(logits[0, -1], int(ids[target]))
        scored.append(target)
    return total, scored


# --- stream ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CARRYING)
@pytest.mark.parametrize("chars_at_once", [1, 3, 40, 8192])
def test_stream_is_one_pass_that_carries_the_state(chars_at_once: int, kind: str) -> None:
    model, ids = make_model(kind), text(41)
    score = evaluate(model, ids, STREAM, seed=0, chars_at_once=chars_at_once)
    assert score.nats == pytest.approx(one_by_one(model, ids), rel=1e-6)
    assert score.nats == pytest.approx(by_sampling_logits(model, ids), rel=1e-6)
    assert (score.chars, score.protocol) == (40, "stream")


@pytest.mark.parametrize(("n", "rows"), [(41, 3), (40, 4), (33, 2), (100, 16), (18, 2), (9, 2)])
@pytest.mark.parametrize("chars_at_once", [4, 50, 8192])
def test_rows_of_a_stream_start_with_the_end_of_the_row_before(
    n: int, rows: int, chars_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmup, shortest = 4, 8
    monkeypatch.setattr(module, "WARMUP", warmup)
    monkeypatch.setattr(module, "MIN_ROW", shortest)
    model, ids = make_model("lstm"), text(n)
    score = evaluate(model, ids, STREAM, seed=0, chars_at_once=chars_at_once, rows=rows)
    rows = max(1, min(rows, (n - 1) // shortest))
    warmup = warmup if rows > 1 else 0
    part = math.ceil((n - 1 - warmup) / rows)  # targets of a row
    total = 0.0
    for row in range(rows):
        piece = ids[row * part : row * part + warmup + part + 1]
        total += one_by_one(model, piece)
        if row and len(piece) > 1:  # without the targets that the row before has scored
            total -= one_by_one(model, piece[: warmup + 1])
    assert score.nats == pytest.approx(total, rel=1e-5)
    assert score.chars == n - 1


@settings(max_examples=40, deadline=None)
@given(context=st.integers(2, 9), n=st.integers(2, 45))
def test_stream_of_a_gpt_is_the_loss_of_sampled_text(context: int, n: int) -> None:
    model, ids = make_model("gpt", context), text(n, seed=context)
    score = evaluate(model, ids, STREAM, seed=0)
    expected, scored = by_windows(model, ids, context)
    assert score.nats == pytest.approx(expected, rel=1e-5)
    assert score.nats == pytest.approx(by_sampling_logits(model, ids), rel=1e-5)
    assert score.chars == len(scored) == n - 1


@pytest.mark.parametrize("context", [4, 5])
@pytest.mark.parametrize("extra", range(-1, 8))
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope"])
def test_stream_of_a_gpt_scores_every_character_once_for_every_length_of_text(
    position: str, extra: int, context: int
) -> None:
    model, ids = make_model("gpt", context, position=position), text(context + 1 + extra)
    score = evaluate(model, ids, STREAM, seed=0)
    assert score.nats == pytest.approx(by_windows(model, ids, context)[0], rel=1e-5)
    assert score.chars == context + extra


@pytest.mark.parametrize("chars_at_once", [1, 10, 25, 8192])
def test_stream_of_a_gpt_does_not_depend_on_the_batch_size(chars_at_once: int) -> None:
    model, ids = make_model("gpt", 5), text(50)
    score = evaluate(model, ids, STREAM, seed=0, chars_at_once=chars_at_once)
    assert score.nats == pytest.approx(by_windows(model, ids, 5)[0], rel=1e-5)


def test_stream_of_a_gpt_describes_its_stride_and_context() -> None:
    description = evaluate(make_model("gpt", 5), text(50), STREAM, seed=0).description
    assert description == "windows of 5 characters, 3 apart, 2 of them for context"


# --- windows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chars_at_once", [1, 14, 8192])
def test_windows_start_at_random_positions_from_a_fresh_state(
    chars_at_once: int, kind: str
) -> None:
    model, ids = make_model(kind), text(60)
    starts = generator(5, "windows").integers(0, 60 - 6, 9)
    expected = sum(one_by_one_window(model, ids[start : start + 7]) for start in starts)
    score = evaluate(model, ids, WINDOWS, seed=5, chars_at_once=chars_at_once)
    assert score.nats == pytest.approx(expected, rel=1e-5)
    assert (score.chars, score.protocol) == (9 * 6, "windows")
    assert score.description == "9 random windows of 6 characters, fresh state, seed 5"


@torch.no_grad()
def one_by_one_window(model: CharModel, ids: Ids) -> float:
    model.eval()
    inputs = torch.from_numpy(ids.astype(np.int64))[None]
    return sum(nll(model(inputs[:, :t], None)[0][0, -1], int(ids[t])) for t in range(1, len(ids)))


@pytest.mark.parametrize(
    ("kind", "context", "n", "length"),
    [("gpt", 4, 60, 4), ("gpt", 64, 60, 6), ("lstm", 0, 5, 4), ("gpt", 4, 2, 1)],
)
def test_a_window_is_as_long_as_the_setting_the_context_and_the_text_allow(
    kind: str, context: int, n: int, length: int
) -> None:
    score = evaluate(make_model(kind, context), text(n), WINDOWS, seed=0)
    assert score.chars == 9 * length


def test_windows_reach_both_ends_of_the_text() -> None:
    starts: set[int] = set()
    model, ids = (
        make_model("rnn"),
        np.arange(V, dtype=np.uint8),
    )  # the first id of a window is its start
    model.register_forward_pre_hook(lambda _model, given: starts.update(given[0][:, 0].tolist()))
    evaluate(model, ids, WINDOWS.model_copy(update={"window": 4, "n_windows": 60}), seed=0)
    assert starts == {0, 1, 2}


def test_another_seed_gives_other_windows() -> None:
    model, ids = make_model("lstm"), text(60)
    one, same, other = (evaluate(model, ids, WINDOWS, seed).nats for seed in (1, 1, 2))
    assert one == same
    assert one != other


# --- items -----------------------------------------------------------------------------------

ITEMS = EvalConfig(protocol="items")
END = 0  # the id of the line end


def list_of(lengths: list[int], seed: int = 0) -> TextIds:
    """A text of documents of random characters, each with its line end."""
    chars = np.random.default_rng(seed).integers(1, V, sum(lengths)).astype(np.uint8)
    starts = np.cumsum([0, *lengths])
    chars[starts[1:] - 1] = END
    return TextIds(chars, np.arange(V, dtype=np.uint8), starts)


def document_by_document(model: CharModel, ids: TextIds, max_length: int) -> float:
    """Each document on its own, with a fresh state after every `max_length` characters."""
    assert ids.starts is not None
    total = 0.0
    for start, end in itertools.pairwise(ids.starts.tolist()):
        document = np.concatenate([[END], ids[start:end]])  # with the line end before it
        for i in range(0, len(document) - 1, max_length):
            total += one_by_one_window(model, document[i : i + max_length + 1])
    return total


@settings(max_examples=15)
@given(
    kind=st.sampled_from(KINDS),
    context=st.integers(2, 9),
    lengths=st.lists(st.integers(1, 13), min_size=2, max_size=12),
    chars_at_once=st.sampled_from([13, 30, 8192]),
)
@example(kind="gpt", context=3, lengths=[9, 1, 13, 3, 4, 3], chars_at_once=13)
@example(kind="lstm", context=3, lengths=[13, 1, 13, 2, 6, 6], chars_at_once=13)
def test_every_document_is_scored_on_its_own_from_the_line_end_before_it(
    kind: str, context: int, lengths: list[int], chars_at_once: int
) -> None:
    model, ids = make_model(kind, context), list_of(lengths, seed=context)
    score = evaluate(model, ids, ITEMS, seed=0, chars_at_once=chars_at_once)
    max_length = context if kind == "gpt" else 8192
    assert score.nats == pytest.approx(document_by_document(model, ids, max_length), rel=1e-5)
    assert (score.chars, score.protocol) == (sum(lengths), "items")
    assert score.description == f"{len(lengths)} documents, each from a fresh state"


def test_documents_of_similar_lengths_are_read_in_batches() -> None:
    model, shapes = make_model("rnn"), []
    model.register_forward_pre_hook(lambda _model, given: shapes.append(tuple(given[0].shape)))
    evaluate(model, list_of([3, 7, 1, 2, 1, 3, 3, 20]), ITEMS, seed=0, chars_at_once=12)
    assert shapes == [(4, 3), (2, 3), (1, 7), (1, 8), (1, 12)]


def test_part_of_a_list_is_scored_as_a_list() -> None:
    model, ids = make_model("gru"), list_of([3, 7, 1, 2, 9, 4])
    part = ids.stretch(3, 24)  # four whole documents
    assert evaluate(model, part, ITEMS, seed=0).chars == 7 + 1 + 2 + 9
    assert evaluate(model, part, ITEMS, seed=0).nats == pytest.approx(
        document_by_document(model, part, 8192), rel=1e-5
    )


def test_items_need_a_text_with_documents() -> None:
    plain = TextIds(text(9), np.arange(V, dtype=np.uint8))
    for ids in (text(9), plain, list_of([4, 5])[:]):
        with pytest.raises(DataError, match=r"needs a text with data\.documents: lines"):
            evaluate(make_model("rnn"), ids, ITEMS, seed=0)


@pytest.mark.parametrize("config", [STREAM, WINDOWS], ids=["stream", "windows"])
@pytest.mark.parametrize("kind", ["gru", "mlp", "gpt"])
def test_a_list_can_be_scored_as_a_text_and_a_text_on_the_disk_as_its_ids(
    kind: str, config: EvalConfig
) -> None:
    model, ids = make_model(kind), list_of([9, 20, 11, 3])
    assert evaluate(model, ids, config, seed=3) == evaluate(model, ids[:], config, seed=3)


# --- all -------------------------------------------------------------------------------------

PROTOCOLS = pytest.mark.parametrize(
    "config", [STREAM, WINDOWS, ITEMS], ids=["stream", "windows", "items"]
)


def listed(n: int) -> TextIds:
    """A text of documents with about n characters."""
    return list_of([1 + i % 4 for i in range(n // 10 * 4)] if n > 9 else [1] * n)


@PROTOCOLS
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_uniform_logits_needs_ln_v_nats(kind: str, config: EvalConfig) -> None:
    model = make_model(kind)
    with torch.no_grad():
        for parameter in model.get_submodule("head").parameters():
            parameter.zero_()
    score = evaluate(model, listed(100), config, seed=0)
    assert score.nats_per_char == pytest.approx(math.log(V), rel=1e-6)
    assert score.bits_per_char == pytest.approx(math.log2(V), rel=1e-6)
    assert score.perplexity == pytest.approx(V, rel=1e-6)


def test_a_score_divides_nats_by_characters() -> None:
    score = Score(nats=30.0, chars=20, protocol="stream", description="")
    assert score.nats_per_char == 1.5
    assert score.bits_per_char == 1.5 / math.log(2)
    assert score.perplexity == math.exp(1.5)


def test_a_perplexity_that_overflows_is_infinite() -> None:
    assert Score(nats=1e6, chars=10, protocol="stream", description="").perplexity == math.inf


@PROTOCOLS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_is_repeatable_and_changes_nothing(
    kind: str, training: bool, config: EvalConfig
) -> None:
    model = make_model(kind).train(training)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    torch.manual_seed(2)
    generator = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index]
    scores = [evaluate(model, listed(60), config, seed=3) for _ in range(2)]
    assert scores[0] == scores[1]
    assert model.training is training
    assert all(module_.training is training for module_ in model.modules())
    assert torch.equal(torch.get_rng_state(), generator)
    assert (np.random.get_state()[1] == numpy_before).all()  # type: ignore[index]
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None
        assert parameter.requires_grad
    assert torch.is_grad_enabled()


def after(calls: int) -> Callable[[], bool]:
    """A function that returns False `calls` times, then True."""
    answers = iter([False] * calls)
    return lambda: next(answers, True)


@PROTOCOLS
@pytest.mark.parametrize("calls", [0, 2])
@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_stopped_evaluation_restores_the_mode(kind: str, calls: int, config: EvalConfig) -> None:
    model = make_model(kind).train()
    with pytest.raises(InterruptedEvaluationError):
        evaluate(model, listed(60), config, 0, after(calls), chars_at_once=8)
    assert model.training


@PROTOCOLS
@pytest.mark.parametrize("n", [0, 1])
def test_a_text_with_nothing_to_score_is_rejected(n: int, config: EvalConfig) -> None:
    with pytest.raises(DataError, match=f"2 characters or more, this has {n}"):
        evaluate(make_model("rnn"), listed(n), config, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_two_characters_are_enough(kind: str) -> None:
    model, ids = make_model(kind), text(2)
    assert evaluate(model, ids, STREAM, seed=0).nats == pytest.approx(
        by_sampling_logits(model, ids)
    )
