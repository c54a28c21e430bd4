"""Novelty compared with an exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.data.vocab import Vocab
from charlm.sampling import novelty
from charlm.sampling.novelty import NGRAMS, compare

VOCAB = Vocab("\nabc")
texts = st.text("ab", min_size=1, max_size=60)
lines_ = st.lists(st.text("abc", max_size=4), min_size=1, max_size=20)
samples_ = st.lists(st.text("abc", max_size=25), min_size=1, max_size=3)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "CHUNK_CHARS", 16)


@given(texts, samples_)
@example("abababababababababababab", ["bababababababababab"])
def test_the_result_is_that_of_an_exhaustive_search(text: str, samples: list[str]) -> None:
    found = compare(samples, VOCAB, VOCAB.encode(text), of_documents=False)
    assert found.chars == sum(map(len, samples))
    passages = [s[i:j] for s in samples for i in range(len(s) + 1) for j in range(i, len(s) + 1)]
    assert len(found.longest) == max(len(passage) for passage in passages if passage in text)
    assert found.longest in text
    assert any(found.longest in sample for sample in samples)
    for n in NGRAMS:
        grams = [s[i : i + n] for s in samples for i in range(len(s) - n + 1)]
        shares = [sum(gram not in text for gram in grams) / len(grams)] if grams else []
        assert (
            [found.new_ngrams[n]] == pytest.approx(shares) if grams else n not in found.new_ngrams
        )


@given(texts, samples_)
def test_the_result_is_exact_if_all_hashes_collide(text: str, samples: list[str]) -> None:
    expected = compare(samples, VOCAB, VOCAB.encode(text), of_documents=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(novelty, "_hashes", lambda ids, n: np.zeros(max(0, len(ids) - n + 1), "u8"))
        found = compare(samples, VOCAB, VOCAB.encode(text), of_documents=False)
    assert found == expected


@given(lines_, lines_, lines_, samples_)
def test_a_document_is_new_if_it_is_not_a_line_of_the_text(
    lines: list[str], first: list[str], second: list[str], samples: list[str]
) -> None:
    text, *held_out = (
        VOCAB.encode("".join(f"{line}\n" for line in part)) for part in (lines, first, second)
    )
    found = compare(samples, VOCAB, text, of_documents=True, held_out=held_out)
    assert found.items == len(set(samples))
    new = {s for s in samples if s not in {*lines, ""}}
    assert found.new_items == len(new)
    assert found.held_out_items == len(new & {*first, *second})
