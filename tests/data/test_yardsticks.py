"""Entropies, n-gram models and compressors."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.vocab import Ids, Vocab
from charlm.data.yardsticks import compressed_bits, entropies, ngram_bits
from charlm.errors import DataError

TEXTS = st.text("abcд", max_size=40)
WORDS = "the cat sat on the mat and the dog sat on the cat; " * 40


def ids_of(text: str) -> Ids:
    return np.array([ord(char) for char in text], dtype=np.uint32)


class ReferenceModel:
    """The n-gram model one character at a time, with dictionaries of strings."""

    def __init__(self, train: str, alphabet: set[str], order: int) -> None:
        self.alphabet = alphabet
        self.after: dict[str, Counter[str]] = defaultdict(Counter)
        for i, char in enumerate(train):
            for k in range(min(order, i) + 1):
                self.after[train[i - k : i]][char] += 1
        self.order = order

    def p(self, char: str, before: str) -> float:
        p = 1 / len(self.alphabet)
        for k in range(min(self.order, len(before)) + 1):
            seen = self.after.get(before[len(before) - k :])
            if seen:
                p = (seen[char] + len(seen) * p) / (seen.total() + len(seen))
        return p

    def bits(self, train: str, val: str) -> float:
        text = train + val
        positions = range(len(train), len(text))
        return -sum(math.log2(self.p(text[i], text[:i])) for i in positions) / len(val)


def reference_entropy(text: str, k: int) -> float:
    after: dict[str, Counter[str]] = defaultdict(Counter)
    for i in range(k, len(text)):
        after[text[i - k : i]][text[i]] += 1
    seen = [(n, counts.total()) for counts in after.values() for n in counts.values()]
    return -sum(n * math.log2(n / total) for n, total in seen) / max(1, len(text) - k)


@given(TEXTS, st.integers(0, 6))
def test_entropies_match_the_reference(text: str, orders: int) -> None:
    expected = [reference_entropy(text, k) for k in range(orders)]
    assert entropies(ids_of(text), orders) == pytest.approx(expected, abs=1e-12)


@given(TEXTS)
def test_a_longer_context_never_increases_the_entropy(text: str) -> None:
    """Both over the same positions, which have k + 1 characters before them."""
    longer = entropies(ids_of(text), 5)[1:]
    shorter = entropies(ids_of(text[1:]), 4)
    assert all(a <= b + 1e-12 for a, b in zip(longer, shorter, strict=True))


def test_entropies_of_words_decrease() -> None:
    values = entropies(ids_of(WORDS), 5)
    assert values == sorted(values, reverse=True)
    assert values[0] > 3
    assert values[4] < 0.6


@pytest.mark.parametrize("size", [2, 7, 1000])
def test_uniformly_drawn_characters_have_log2_v_bits(size: int) -> None:
    ids = np.random.default_rng(0).integers(0, size, 400_000)
    first, second = entropies(ids, 2)
    assert first == pytest.approx(math.log2(size), abs=0.01)
    assert second < first + 1e-9
    bits = ngram_bits(ids[:300_000], ids[300_000:], 0)
    assert bits == pytest.approx([math.log2(size)], abs=0.01)


def test_a_cycle_has_no_entropy_given_one_character() -> None:
    ids = np.arange(70_000) % 7
    assert entropies(ids) == pytest.approx([math.log2(7), 0, 0], abs=1e-9)
    unigram, *longer = ngram_bits(ids[:60_000], ids[60_000:], 3)
    assert unigram == pytest.approx(math.log2(7), abs=1e-3)
    assert len(longer) == 3
    assert max(longer) < 1e-3


def test_a_text_of_one_character_has_no_entropy_and_no_minus_sign() -> None:
    assert [str(x) for x in entropies(ids_of("aaaa"), 6)] == ["0.0"] * 6
    assert [str(x) for x in ngram_bits(ids_of("aaaa"), ids_of("aa"), 6)] == ["0.0"] * 7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_the_values_and_the_type_of_ids_make_no_difference(dtype: type) -> None:
    ids = Vocab.of(WORDS).encode(WORDS).astype(np.uint8)
    spread: Ids = ids.astype(dtype) * (np.iinfo(dtype).max // 30)  # the same characters, far apart
    assert entropies(spread) == entropies(ids)
    assert ngram_bits(spread[:1500], spread[1500:], 6) == ngram_bits(ids[:1500], ids[1500:], 6)


@given(TEXTS, st.text("abcдe", min_size=1, max_size=20), st.integers(0, 6))
def test_ngram_bits_match_the_reference(train: str, val: str, order: int) -> None:
    alphabet = set(train + val)
    expected = [ReferenceModel(train, alphabet, k).bits(train, val) for k in range(order + 1)]
    assert ngram_bits(ids_of(train), ids_of(val), order) == pytest.approx(expected, rel=1e-12)


@given(st.text("abcд", min_size=1, max_size=40), st.integers(0, 6))
def test_the_probabilities_of_the_next_character_sum_to_one(train: str, order: int) -> None:
    ids = ids_of(train)
    alphabet = [np.array([x], dtype=np.uint32) for x in np.unique(ids)]
    bits = np.array([ngram_bits(ids, x, order) for x in alphabet])  # (V, order + 1)
    assert (2**-bits).sum(0) == pytest.approx(np.ones(order + 1))


@given(TEXTS, st.text("abcд", min_size=2, max_size=20), st.integers(0, 4))
def test_nothing_is_learned_from_the_scored_text(train: str, val: str, order: int) -> None:
    """Each character is scored alone, with the model of `train`."""
    model = ReferenceModel(train, set(train + val), order)
    singly = [-math.log2(model.p(c, train + val[:i])) for i, c in enumerate(val)]
    assert ngram_bits(ids_of(train), ids_of(val), order)[-1] == pytest.approx(np.mean(singly))


def test_contexts_reach_back_into_the_end_of_the_training_text() -> None:
    train, b = ids_of("abababababababaa"), ids_of("b")
    unigram, bigram = ngram_bits(train, b, 1)
    assert bigram < unigram


def test_a_higher_order_helps_if_the_text_repeats() -> None:
    ids = ids_of(WORDS)
    values = ngram_bits(ids[:1500], ids[1500:], 5)
    assert len(values) == 6
    assert values == sorted(values, reverse=True)


def test_without_training_text_all_characters_are_equally_likely() -> None:
    assert ngram_bits(ids_of(""), ids_of("abcd"), 6) == [2] * 7


def test_an_empty_text_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1 character"):
        ngram_bits(ids_of("abc"), ids_of(""), 6)


@pytest.mark.parametrize("text", [WORDS, "д", "日本語" * 500])
def test_compressed_bits_count_all_bytes_that_a_compressor_writes(text: str) -> None:
    data = text.encode()
    packed: dict[str, Sequence[int]] = {
        "gzip": gzip.compress(data, compresslevel=9),
        "bzip2": bz2.compress(data, compresslevel=9),
        "xz": lzma.compress(data, preset=9),
    }
    expected = {name: 8 * len(x) / len(text) for name, x in packed.items()}
    assert compressed_bits(data, len(text)) == expected
    assert list(compressed_bits(data, len(text))) == ["gzip", "bzip2", "xz"]


def test_a_repetitive_text_is_compressed_more_than_a_random_one() -> None:
    noise = np.random.default_rng(0).bytes(len(WORDS))
    random, repeated = (
        compressed_bits(noise, len(noise)),
        compressed_bits(WORDS.encode(), len(WORDS)),
    )
    assert all(random[name] > 8 and repeated[name] < 1 for name in random)


def test_compressed_bits_of_an_empty_text_are_refused() -> None:
    with pytest.raises(DataError, match="at least 1 character"):
        compressed_bits(b"", 0)
