"""Recording a text piece by piece: every character once, without a change to the model."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import EvalConfig
from charlm.data.corpus import TextIds
from charlm.data.vocab import Ids
from charlm.errors import BrokenModelError
from charlm.evaluation.evaluate import evaluate
from charlm.insight.record import CHARS_AT_ONCE, record, record_units, windows_of
from charlm.insight.trace import trace
from tests.insight.helpers import KINDS, RECURRENT, network, random_ids


def starts_of(lengths: list[int]) -> Ids:
    return np.cumsum([0, *lengths])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.sampled_from([None, 1, 2, 5, 12]),
    st.booleans(),
)
def test_windows_cover_every_character_once_and_in_order(
    lengths: list[int], context: int | None, is_list: bool
) -> None:
    n = sum(lengths)
    found = list(windows_of(n, context, starts_of(lengths) if is_list else None))
    covered = [
        position for window in found for position in range(window.start + window.skip, window.stop)
    ]
    assert covered == list(range(n))
    assert all(window.stop - window.start <= (context or CHARS_AT_ONCE) for window in found)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_text_read_in_pieces_has_the_units_of_the_whole(kind: str) -> None:
    n = 2 * CHARS_AT_ONCE + 7
    model, ids = network(kind), random_ids(n)
    recorded = record(model, ids)
    whole, _ = trace(model, torch.from_numpy(ids.astype(np.int64))[None])
    for actual, exact in ((recorded.units, whole.units), (recorded.gates, whole.gates)):
        for name, values in exact.items():
            assert actual[name].shape == (2, n, 6)
            np.testing.assert_allclose(actual[name], values[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_surprisal_and_guesses_equal_those_of_the_model(kind: str) -> None:
    model, ids = network(kind), random_ids(100)
    recorded = record(model, ids)
    score = evaluate(model, TextIds(ids, np.arange(9)), EvalConfig(), seed=1)
    assert np.isnan(recorded.nats).tolist() == [True] + 99 * [False]
    assert float(np.nansum(recorded.nats)) == pytest.approx(score.nats, rel=1e-5)
    model.eval()
    p = model(torch.from_numpy(ids[:10].astype(np.int64))[None])[0][0].softmax(-1).detach().numpy()
    for t in range(10):
        assert recorded.guesses[t].tolist() == np.argsort(-p[t])[:5].tolist()
        np.testing.assert_allclose(recorded.probabilities[t], np.sort(p[t])[::-1][:5], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_documents_of_a_list_are_read_separately(kind: str) -> None:
    model, starts = network(kind), starts_of([30, 5, 20])
    ids = random_ids(55)
    recorded = record(model, ids, starts)
    for first, stop in ((29, 34), (34, 55)):  # from the line end before
        alone = record(model, ids[first:stop])
        for name, values in alone.units.items():
            np.testing.assert_allclose(recorded.units[name][:, first:stop], values, atol=1e-3)
        np.testing.assert_allclose(recorded.nats[first + 1 : stop], alone.nats[1:], rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_and_the_generators_do_not_change(kind: str, training: bool) -> None:
    model = network(kind).train(training)
    model(torch.zeros(1, 3, dtype=torch.int64))[0].sum().backward()
    before = copy.deepcopy(model)
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    record(model, random_ids(40))
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for ours, theirs in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.requires_grad
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(map(torch.equal, after, gradients))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_units_read_side_by_side_are_approximately_exact(kind: str) -> None:
    model = network(kind, hidden_size=6) if kind != "gpt" else network(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    ids = random_ids(300)
    exact, near = record(model, ids).units, record_units(model, ids, rows=3, warm_up=40)
    for name, values in exact.items():
        assert near[name].shape == values.shape
        if kind == "gpt":
            np.testing.assert_array_equal(near[name], values)
        else:
            np.testing.assert_allclose(near[name][:, 30:], values[:, 30:], atol=0.02)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_a_broken_model_is_reported(value: float) -> None:
    model = network("lstm")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[::2] = value
    with pytest.raises(BrokenModelError, match="not finite"):
        record(model, random_ids(20))
