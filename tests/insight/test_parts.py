"""Ablation, gates, attention, surprisal and growth against their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.vocab import Vocab
from charlm.data.yardsticks import ngram_bits
from charlm.insight import attention as heads
from charlm.insight.ablate import ablate
from charlm.insight.attention import attention_window, score_heads
from charlm.insight.features import FEATURES
from charlm.insight.gates import gate_use
from charlm.insight.growth import read_growth
from charlm.insight.record import record
from charlm.insight.search import Unit
from charlm.insight.surprisal import (
    by_class,
    by_distance,
    by_line_position,
    by_word_position,
    compare_ngrams,
    worst_passages,
)
from charlm.models import GPT
from charlm.units import bits
from tests.insight.helpers import network, quoted_text, random_ids, with_quote_detector

# --- ablation --------------------------------------------------------------------------------


def test_the_rise_is_the_loss_without_a_unit_minus_the_loss_with_it() -> None:
    model, ids = network("rnn"), random_ids(60)
    units = [Unit("h", layer, index, 1, 0.0) for layer in (0, 1) for index in range(6)]
    found = ablate(model, ids, units)  # more than one batch
    before = record(model, ids).nats
    for each in (found[2], found[10]):
        cut: Any = network("rnn")
        with torch.no_grad():
            getattr(cut.rnn, f"weight_hh_l{each.unit.layer}")[:, each.unit.index] = 0
            reads = cut.head.weight if each.unit.layer else cut.rnn.weight_ih_l1
            reads[:, each.unit.index] = 0
        rise = bits(1.0) * (record(cut, ids).nats - before)
        np.testing.assert_allclose(each.rise[1:], rise[1:], atol=1e-4)
        assert each.mean == pytest.approx(float(rise[1:].mean()), abs=1e-4)
        char, count, mean = each.chars[0]
        assert count == (ids[1:] == char).sum()
        assert mean == pytest.approx(float(rise[1:][ids[1:] == char].mean()), abs=1e-4)


def test_without_its_quote_detector_the_loss_rises_at_closing_quotation_marks() -> None:
    text = quoted_text(1500)
    vocab = Vocab.of(text)
    model = with_quote_detector(vocab, hidden_size=8, unit=3)
    (mark,) = vocab.encode('"')
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[mark, 3] = 3  # inside quotes, the closing mark is more likely
    (found,) = ablate(model, vocab.encode(text), [Unit("c", 0, 3, 1, 1.0)])
    inside = FEATURES["in double quotes"](text)
    closing = np.flatnonzero(inside[:-1] & ~inside[1:]) + 1
    assert {text[position] for position in closing} == {'"'}
    assert found.rise[closing].min() > 1 > found.mean


# --- gates -----------------------------------------------------------------------------------


def test_gate_use_counts_shut_and_open_gates() -> None:
    values = np.array([0.05, 0.09, 0.5, 0.95])[None, :, None]  # one unit, four characters
    forget, output = gate_use({"forget": values, "output": 1 - values})
    assert (forget.left.item(), forget.right.item()) == (0.5, 0.25)
    assert (output.left.item(), output.right.item()) == (0.25, 0.5)
    assert forget.memory is not None
    assert forget.memory.item() == pytest.approx(1 / (1 - values.mean()))
    assert output.memory is None


def test_a_gate_that_never_shuts_has_a_finite_memory() -> None:
    (use,) = gate_use({"forget": np.ones((1, 10, 1), np.float16)})
    assert use.memory is not None
    assert use.memory.item() == 4096


# --- attention -------------------------------------------------------------------------------


@given(st.text("ab(\n)", min_size=1, max_size=30))
def test_targets_are_earlier_characters_of_their_kind(text: str) -> None:
    for name, target in heads.TARGETS.items():
        mask = target(text)
        for query, key in zip(*np.nonzero(mask), strict=True):
            assert key < query, name
            if name == "previous character":
                assert key == query - 1
            elif name == "same character earlier":
                assert text[key] == text[query]
            elif name == "matching bracket":
                assert text[key] == "("
            else:
                assert key == 0 or "\n" in (text[key], text[key - 1])
    assert heads.TARGETS["same character earlier"](text).sum() == sum(
        text[:t].count(char) for t, char in enumerate(text)
    )


def test_a_planted_head_for_the_previous_character_is_the_only_discovery() -> None:
    text = quoted_text(400)
    vocab = Vocab.of(text)
    ids = vocab.encode(text)
    made = {"n_embd": 64, "context": 64, "position": "learned", "qk_norm": False}
    model, *untrained = (
        network("gpt", len(vocab), seed, n_layer=1, n_head=2, **made) for seed in (1, 2, 3)
    )
    for other in (model, *untrained):
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.25)  # small, as in a new network
    assert isinstance(model, GPT)
    plant_previous(model)
    scores = score_heads(model, ids, text, [each for each in untrained if isinstance(each, GPT)])
    discoveries = {(each.target, each.head) for each in scores if each.discovery}
    assert discoveries == {("previous character", 0)}
    assert scores[0].score > 0.9
    window = attention_window(model, ids)
    assert window.attention.shape == (1, 2, 64, 64)
    assert window.attention[0, 0, 7].argmax() == 6


def plant_previous(model: Any) -> None:
    """Plant weights into head 0 of two heads of width 32: position t attends to t - 1."""
    K, positions = 32, torch.arange(64)
    angles = positions[:, None] * (0.1 + 0.37 * torch.arange(K // 2))  # (64, K/2)
    code = torch.cat([angles.cos(), angles.sin()], dim=1)  # (64, K)
    turn = 0.1 + 0.37 * torch.arange(K // 2)
    cos, sin = turn.cos().diag(), turn.sin().diag()
    back = torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)], 0)  # t -> t + 1
    attention = model.blocks[0].attention
    with torch.no_grad():
        model.position.table.zero_()
        model.position.table[:, :K] = 10 * code
        attention.qkv.weight[:K] = 0  # queries of head 0
        attention.qkv.weight[:K, :K] = 3 * torch.eye(K)
        attention.qkv.weight[2 * K : 3 * K] = 0  # its keys
        attention.qkv.weight[2 * K : 3 * K, :K] = 3 * back


# --- where the bits go -----------------------------------------------------------------------


def test_groups_have_every_character_and_all_bits() -> None:
    text = 'One "two",\n  3 four\nfour Ünd 中'
    surprisal = np.random.default_rng(0).random(len(text)).astype(np.float32)
    surprisal[0] = np.nan
    for groups in (
        by_class(text, surprisal),
        by_line_position(text, surprisal),
        by_distance(text, surprisal),
    ):
        assert sum(group.count for group in groups) == len(text) - 1
        assert sum(group.share for group in groups) == pytest.approx(1)
        total = sum(group.bits * group.count for group in groups)
        assert total == pytest.approx(float(np.nansum(surprisal)), rel=1e-5)
    names = {group.name: group.count for group in by_class(text, surprisal)}
    assert names["line end"] == 2
    assert names["digit"] == 1
    assert names["letter without case"] == 1
    assert names["punctuation"] == 3
    letters = by_word_position("ab abc", np.ones(6))
    assert [(group.name, group.count) for group in letters] == [("1", 2), ("2", 2), ("3", 1)]
    ago = {group.name: group.count for group in by_distance("aabab", np.ones(5))}
    assert ago == {"1": 1, "2 to 3": 2, "never": 2}


def test_the_worst_passages_do_not_overlap() -> None:
    surprisal = np.ones(100)
    surprisal[[20, 21, 70]] = 9
    first, second, *_ = worst_passages(surprisal, keep=3, length=10)
    assert first.start <= 20 < 22 <= first.stop
    assert second.start <= 70 < second.stop
    assert first.bits == pytest.approx(2.6)


def test_ngram_models_have_the_bits_of_ngram_bits_and_avoid_errors() -> None:
    text = quoted_text(3000)
    ids = Vocab.of(text).encode(text)
    before, after = ids[:2500], ids[2500:]
    nats = np.full(500, np.log(4), np.float32)  # probability 1/4: every character is an error
    nats[0] = np.nan
    models = compare_ngrams(nats, before, after, orders=4)
    expected = ngram_bits(before, after, 3)
    assert [model.order for model in models] == [0, 1, 2, 3]
    for model, whole in zip(models, expected, strict=True):
        assert model.bits == pytest.approx(whole, abs=0.05)  # the first character is not scored
        assert model.avoided <= model.avoided_by_any
        assert model.bits_avoided == pytest.approx(model.avoided)
    assert models[3].avoided > models[1].avoided > 0
    sure = compare_ngrams(np.full(500, 0.1, np.float32), before, after, orders=4)
    assert all(model.avoided == 0 for model in sure)  # there are no errors


# --- growth ----------------------------------------------------------------------------------


def test_growth_reads_the_samples_and_losses_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "samples.txt").write_bytes(
        b"--- step 5\nab\n\nc\n\n--- step 10\n--- step 3\nbyte \xff\n\n"
    )
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "split": "train", "loss": 2.5}\n'
        '{"step": 5, "split": "val", "loss": 2.0}\n[]\n7\n'
        '{"step": 1e999, "split": "val", "loss": 1}\n'
        '{"step": 5, "split": "other", "loss": 1}\n{"step": "x", "split": "val", "loss": 1}\n'
        '{"step": 6, "spl'
    )
    growth = read_growth(tmp_path)
    assert [(each.step, each.text) for each in growth.samples] == [
        (5, "ab\n\nc"),
        (10, "--- step 3\nbyte \udcff"),
    ]
    assert growth.losses == {"train": [(1, 2.5)], "val": [(5, 2.0)]}
    nothing = read_growth(tmp_path / "missing")
    assert nothing.samples == []
    assert nothing.losses == {"train": [], "val": []}
