"""A text as ids: its parts, its vocabulary and its hash."""

from __future__ import annotations

import hashlib
import itertools
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data.corpus import Corpus, Split, TextIds, open_corpus
from charlm.data.vocab import UNKNOWN, Vocab
from charlm.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SHORT = st.text("aabbcé\ufffd\U0001f40d", min_size=1, max_size=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("corpus")


def write(folder: Path, content: str | bytes, name: str = "text.txt") -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def config_of(path: str, **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"path": path} | settings)


def corpus_of(text: str | bytes, folder: Path, known: Vocab | None = None, **more: Any) -> Corpus:
    return open_corpus(config_of(write(folder, text), **more), known)


def text_of(corpus: Corpus, split: Split = "all") -> str:
    return corpus.vocab.decode(corpus.split(split)[:])


def sha256(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


# --- parts -----------------------------------------------------------------------------------


@given(
    n=st.integers(1, 500),
    val=st.floats(0, 0.99, allow_subnormal=False),
    test=st.floats(0, 0.99, allow_subnormal=False),
)
def test_the_parts_are_contiguous_and_make_up_the_whole_text(
    folder: Path, n: int, val: float, test: float
) -> None:
    if val + test >= 1:
        val, test = val / 2, test / 2
    text = "".join(chr(0x4E00 + i) for i in range(n))  # every character once
    corpus = corpus_of(text, folder, val_fraction=val, test_fraction=test)
    parts = [text_of(corpus, split) for split in SPLITS]
    assert "".join(parts) == text == text_of(corpus)
    train, _, held_out = map(len, parts)
    assert abs(train - n * (1 - val - test)) <= 1
    assert abs(held_out - n * test) <= 1
    assert held_out > 0 or test * n < 1


def test_the_attributes_of_a_corpus(tmp_path: Path) -> None:
    text = "naïve café\n"
    corpus = corpus_of(text, tmp_path)
    assert len(corpus) == len(text)
    assert corpus.sha256 == sha256(text)
    assert corpus.source == str(tmp_path / "text.txt")
    assert corpus.vocab == Vocab("\n acefnvéï")
    assert (corpus.n_distinct, corpus.n_unknown, corpus.notices) == (10, 0, [])
    assert text_of(corpus) == text


@pytest.mark.parametrize("separate", [{"val": "b"}, {"test": "c"}, {"val": "b", "test": "c"}])
def test_separate_texts_are_the_parts_that_they_are_given_for(
    tmp_path: Path, separate: dict[str, str]
) -> None:
    texts = {"a": "xay\n" * 10, "b": "xby", "c": "xcyz"}
    paths = {name: write(tmp_path, text, name) for name, text in texts.items()}
    settings: dict[str, Any] = {f"{part}_path": paths[name] for part, name in separate.items()}
    settings |= {f"{part}_fraction": 0.3 for part in ("val", "test") if part not in separate}
    corpus = open_corpus(config_of(paths["a"], **settings))
    named = [texts["a"], *(texts[name] for name in separate.values())]
    assert set(corpus.vocab.chars) == set("".join(named))
    assert len(corpus) == len("".join(named))
    assert corpus.n_distinct == len(set("".join(named)))
    assert corpus.source == ", ".join(paths[name] for name in ("a", *separate.values()))
    named_by = {"train": texts["a"]} | {part: texts[name] for part, name in separate.items()}
    hashes = [sha256(named_by[part]) if part in named_by else "" for part in SPLITS]
    assert corpus.sha256 == ",".join(hashes).rstrip(",")
    for split, name in separate.items():
        assert text_of(corpus, split) == texts[name]  # type: ignore[arg-type]
    rest = "".join(text_of(corpus, split) for split in SPLITS if split not in separate)
    assert rest == texts["a"]
    assert len(corpus.split("train")) == 40 - 12 * (2 - len(separate))
    with pytest.raises(DataError, match="choose one: train, val or test"):
        corpus.split("all")


@pytest.mark.parametrize(
    "text", ["a\r\nb\r\n", "a\rb\r", "a\nb\n", "a\r\r\n\x85\u2028b", "a\ufeff"]
)
def test_line_ends_and_all_other_characters_are_kept(tmp_path: Path, text: str) -> None:
    assert text_of(corpus_of(text, tmp_path)) == text


@pytest.mark.usefixtures("cache")
def test_a_text_that_was_read_before_is_not_held_in_memory(tmp_path: Path) -> None:
    n = len(corpus_of("0123456789abcdef" * 2**18, tmp_path))  # 4 MB
    tracemalloc.start()
    try:
        train = open_corpus(config_of(str(tmp_path / "text.txt"))).split("train").stretch(9, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n / 10
    assert len(train) == int(0.9 * n) - 9


@contextmanager
def piped_in(path: str) -> Iterator[None]:
    """Make the file standard input."""
    usual, descriptor = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(descriptor, 0)
    try:
        yield
    finally:
        os.dup2(usual, 0)
        os.close(usual)
        os.close(descriptor)


def test_a_text_that_was_piped_in_beside_a_file_is_found_again_by_its_hash(tmp_path: Path) -> None:
    config = config_of("-", val_fraction=0, val_path=write(tmp_path, "beside it", "val.txt"))
    with piped_in(write(tmp_path, "piped in\n")):
        first = open_corpus(config)
        again = open_corpus(config, expected=first.sha256)
    assert text_of(first, "train") == text_of(again, "train") == "piped in\n"
    assert first.sha256 == again.sha256


# --- a stretch -------------------------------------------------------------------------------


@given(st.binary(max_size=30), st.integers(0, 30), st.none() | st.integers(0, 40))
def test_a_stretch_is_a_slice_of_the_ids(raw: bytes, start: int, stop: int | None) -> None:
    table = np.arange(256, dtype=np.uint16)[::-1] + 5
    by_hand = [260 - byte for byte in raw]
    ids = TextIds(np.frombuffer(raw, np.uint8), table)
    assert len(ids) == len(raw)
    stretch = ids.stretch(start, stop)
    assert stretch[:].tolist() == by_hand[start:stop] == ids[start:stop].tolist()
    assert len(stretch) == len(by_hand[start:stop])
    assert stretch.stretch(1, 4)[:].tolist() == by_hand[start:stop][1:4]


def test_positions_may_have_any_shape() -> None:
    ids = TextIds(np.array([2, 0, 1], np.uint8), np.array([7, 8, 9], np.uint8))
    assert ids[np.array([[0, 1], [2, 2], [1, 0]])].tolist() == [[9, 7], [8, 8], [7, 9]]


@given(
    lengths=st.lists(st.integers(1, 5), max_size=8),
    start=st.integers(0, 42),
    length=st.none() | st.integers(0, 42),
)
@example([5], 1, 2)  # within one document
@example([2, 5, 2], 3, 4)
def test_a_stretch_of_a_list_has_the_documents_that_lie_entirely_in_it(
    lengths: list[int], start: int, length: int | None
) -> None:
    starts = np.cumsum([0, *lengths])
    start = min(start, int(starts[-1]))
    stop = None if length is None else start + length
    ids = TextIds(np.arange(starts[-1], dtype=np.uint8), np.arange(42, dtype=np.uint8), starts)
    inside = [
        list(range(begin, end))
        for begin, end in itertools.pairwise(starts.tolist())
        if start <= begin and (stop is None or end <= stop)
    ]
    stretch = ids.stretch(start, stop)
    assert stretch.starts is not None
    assert stretch[:].tolist() == [position for document in inside for position in document]
    assert stretch.starts.tolist() == np.cumsum([0, *map(len, inside)]).tolist()


@given(st.lists(st.integers(1, 5), max_size=8), st.none() | st.integers(0, 42))
@example([3, 2], 2)
@example([], 2)
def test_the_head_of_a_list_has_at_least_one_document(
    lengths: list[int], max_chars: int | None
) -> None:
    starts = np.cumsum([0, *lengths])
    ids = TextIds(np.arange(starts[-1], dtype=np.uint8), np.arange(42, dtype=np.uint8), starts)
    kept = [int(end) for end in starts if max_chars is None or end <= max_chars]
    head = ids.head(max_chars)
    assert head[:].tolist() == list(range(max([*kept, *starts[1:2]])))
    assert head.starts is not None
    assert len(head.starts) == len(kept) + (kept == [0] and len(lengths) > 0)
    plain = TextIds(np.arange(9, dtype=np.uint8), np.arange(9, dtype=np.uint8))
    assert plain.head(max_chars)[:].tolist() == list(range(9))[:max_chars]


# --- the vocabulary --------------------------------------------------------------------------


def limited_by_hand(text: str, min_count: int, max_size: int | None) -> str:
    """The characters of a limited vocabulary, with U+FFFD."""
    often = [char for char in set(text) - {UNKNOWN} if text.count(char) >= min_count]
    ranked = [char for _, char in sorted((-text.count(char), char) for char in often)]
    return "".join(sorted({*ranked[: None if max_size is None else max_size - 1], UNKNOWN}))


@given(SHORT, st.integers(1, 5), st.none() | st.integers(2, 6))
@example("ba" * 3 + "c", 1, 2)  # a tie
@example(UNKNOWN * 3 + "ab", 1, 2)  # U+FFFD is the most frequent; it is in the vocabulary once
@example("ab", 5, None)  # no character is frequent enough
def test_a_limited_vocabulary_has_the_most_frequent_characters_and_u_fffd_for_the_rest(
    folder: Path, text: str, min_count: int, max_size: int | None
) -> None:
    corpus = corpus_of(text, folder, vocab_min_count=min_count, vocab_size=max_size)
    if min_count == 1 and max_size is None:
        assert corpus.vocab == Vocab("".join(sorted(set(text))))
    else:
        assert corpus.vocab == Vocab(limited_by_hand(text, min_count, max_size), limited=True)
    kept = corpus.vocab.chars
    assert text_of(corpus) == "".join(char if char in kept else UNKNOWN for char in text)
    assert corpus.n_unknown == sum(char not in kept for char in text)
    assert corpus.n_distinct == len(set(text))
    assert corpus.sha256 == sha256(text)  # of the original text, not of the ids


def test_characters_are_counted_over_all_texts(tmp_path: Path) -> None:
    val = write(tmp_path, "bcc", "val.txt")
    corpus = corpus_of("aab", tmp_path, val_path=val, vocab_min_count=2)
    assert (corpus.vocab.chars, corpus.n_unknown) == ("abc" + UNKNOWN, 0)
    corpus = corpus_of("aab", tmp_path, val_path=val, vocab_min_count=3)
    assert (corpus.vocab.chars, corpus.n_unknown) == (UNKNOWN, 6)


@settings(max_examples=25)
@given(known=SHORT, text=SHORT)
def test_a_known_vocabulary_keeps_its_ids_and_new_characters_come_after_it(
    folder: Path, known: str, text: str
) -> None:
    old = Vocab("".join(dict.fromkeys(known)))
    corpus = corpus_of(text, folder, old)
    assert corpus.vocab.chars == old.chars + "".join(sorted(set(text) - set(known)))
    assert text_of(corpus) == text
    config = config_of(str(folder / "text.txt"))
    assert open_corpus(config, old, extend=False).vocab == corpus.vocab  # because it is not limited


@settings(max_examples=25)
@given(text=SHORT, min_count=st.integers(2, 4))
def test_a_limited_vocabulary_is_unchanged_with_extend_false(
    folder: Path, text: str, min_count: int
) -> None:
    old = Vocab("zb" + UNKNOWN + "a", limited=True)
    config = config_of(write(folder, text), vocab_min_count=min_count)
    unchanged, extended = (open_corpus(config, old, extend) for extend in (False, True))
    assert unchanged.vocab == old
    assert text_of(unchanged) == "".join(char if char in old.chars else UNKNOWN for char in text)
    assert unchanged.n_unknown == sum(n for c, n in Counter(text).items() if c not in old.chars)
    new = set(limited_by_hand(text, min_count, None)) - set(old.chars)
    assert extended.vocab == Vocab(old.chars + "".join(sorted(new)), limited=True)


# --- bytes -----------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=60))
@example("é\ufeff\r\n\0\U0001f40d".encode())
@example(b"\xff\xfe\x00a\xed\xa0\x80")
def test_any_bytes_are_their_own_ids(folder: Path, content: bytes) -> None:
    corpus = corpus_of(content, folder, Vocab("zba"), unit="byte")
    ids = corpus.split("all")[:]
    assert (ids.dtype, ids.tobytes()) == (np.dtype(np.uint8), content)
    assert b"".join(corpus.split(split)[:].tobytes() for split in SPLITS) == content
    assert (len(corpus), corpus.sha256) == (len(content), sha256(content))
    assert (len(corpus.vocab), corpus.vocab.unit, corpus.n_unknown) == (256, "byte", 0)
    assert corpus.n_distinct == len(set(content))
    assert text_of(corpus).encode("utf-8", "surrogateescape") == content
    assert np.array_equal(corpus.vocab.encode(text_of(corpus)), ids)


def test_a_limited_vocabulary_of_a_list_keeps_the_line_end(tmp_path: Path) -> None:
    lines = "".join("abc" * 9 + f" {i}\n" for i in range(99))
    path = write(tmp_path, lines)
    for limit in ({"vocab_size": 4}, {"vocab_min_count": 200}):
        corpus = open_corpus(config_of(path, documents="lines", **limit))
        assert "\n" in corpus.vocab.chars
        assert len(corpus.vocab) <= 5
