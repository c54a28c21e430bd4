"""Lists: all documents are shuffled, and none is lost or cut."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import documents
from charlm.data.cache import open_encoded
from charlm.data.corpus import Corpus, Split, TextIds, open_corpus
from charlm.data.documents import shuffle_documents
from charlm.data.sources import find_sources
from charlm.data.vocab import UNKNOWN, Ids
from charlm.errors import DataError
from charlm.randomness import generator

SPLITS: tuple[Split, ...] = ("train", "val", "test")
NAMES = [f"name {i:04}{'x' * (i % 7)}" for i in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("documents")


def list_of(text: str | bytes, folder: Path, **settings: Any) -> Corpus:
    path = folder / "list.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    raw = {"path": str(path), "documents": "lines"} | settings
    return open_corpus(DataConfig.model_validate(raw))


def documents_of(corpus: Corpus, split: Split) -> list[str]:
    """The documents of a part, cut at their starts."""
    ids = corpus.split(split)
    assert ids.starts is not None
    assert ids.starts[0] == 0
    assert ids.starts[-1] == len(ids)
    return [corpus.vocab.decode(ids[a:b]) for a, b in itertools.pairwise(ids.starts.tolist())]


def lines_of(text: str) -> list[str]:
    """The lines that are not blank, each with a line end."""
    return [line + "\n" for line in text.split("\n") if line.removesuffix("\r")]


# --- the order -------------------------------------------------------------------------------


@given(
    text=st.text("ab\r\n", max_size=40).filter(str.strip),
    chunk=st.sampled_from([1, 2, 5, 1 << 20]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.uint32]),
)
@example("\n\na\n\nb\n\n", 2, np.uint8)
@example("\r\nab\r\n\r\n\rb\n\r", 2, np.uint8)
@example("abababab\na\nb", 1, np.uint16)  # a line that is longer than a chunk
def test_the_shuffled_lines_are_the_lines_in_the_order_of_a_permutation(
    folder: Path, text: str, chunk: int, dtype: type
) -> None:
    text = text.removesuffix("\n") + "\n"
    ids: Ids = np.array([ord(char) for char in text], dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "CHUNK_CHARS", chunk)
        starts = shuffle_documents(ids, "".join(map(chr, range(128))), folder / "shuffled")
    written = "".join(map(chr, np.fromfile(folder / "shuffled", dtype)))
    lines = lines_of(text)
    order = generator(0, "items").permutation(len(lines)).tolist()
    assert [written[a:b] for a, b in itertools.pairwise(starts)] == [lines[i] for i in order]
    assert written == "".join(lines[i] for i in order)
    assert starts.dtype == np.int64


def test_lines_are_moved_to_any_position(tmp_path: Path) -> None:
    shuffled = [
        NAMES.index(name.strip())
        for name in documents_of(list_of("\n".join(NAMES), tmp_path), "all")
    ]
    assert sorted(shuffled) == list(range(300))
    assert sum(a + 1 == b for a, b in itertools.pairwise(shuffled)) < 10  # neighbours
    assert abs(np.corrcoef(shuffled, range(300))[0, 1]) < 0.2


def test_a_list_of_blank_lines_is_refused(tmp_path: Path) -> None:
    for text, words in (("\n\n\n", "all lines of this text are blank"), ("", "this text is empty")):
        with pytest.raises(DataError, match=words):
            list_of(text, tmp_path)


# --- as a corpus -----------------------------------------------------------------------------

LINES = st.lists(st.text("abcé🐍 ", max_size=5), min_size=1, max_size=30).filter(any)


@given(
    lines=LINES,
    ended=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    fractions=st.tuples(st.floats(0, 0.5), st.floats(0, 0.49)),
)
def test_every_line_of_a_list_is_in_exactly_one_part(
    folder: Path, lines: list[str], ended: bool, end: str, fractions: tuple[float, float]
) -> None:
    text = end.join(lines) + end * ended
    val, test = fractions
    corpus = list_of(text, folder, val_fraction=val, test_fraction=test, newlines="lf")
    parts = {split: documents_of(corpus, split) for split in SPLITS}
    together = [line for split in SPLITS for line in parts[split]]
    assert together == documents_of(corpus, "all")
    assert Counter(together) == Counter(lines_of("\n".join(lines)))
    assert len(corpus) == len("".join(together))
    assert corpus.n_distinct == len(set("".join(together)))
    longest = max(map(len, together))
    train, held_out = (sum(map(len, parts[split])) for split in ("train", "test"))
    assert abs(train - (1 - val - test) * len(corpus)) <= longest / 2 + 1
    assert abs(held_out - test * len(corpus)) <= longest / 2 + 1


def test_the_carriage_return_of_a_windows_line_end_is_kept_by_default(tmp_path: Path) -> None:
    corpus = list_of("\r\n".join(NAMES), tmp_path)
    assert sorted(documents_of(corpus, "all")) == sorted(
        [name + "\r\n" for name in NAMES[:-1]] + [NAMES[-1] + "\n"]
    )


@pytest.mark.parametrize("newlines", ["keep", "lf"])
def test_blank_lines_with_windows_line_ends_are_left_out(tmp_path: Path, newlines: str) -> None:
    corpus = list_of("Ann\r\n\r\nBob\r\n\r\n", tmp_path, newlines=newlines)
    assert sorted(name.strip() for name in documents_of(corpus, "all")) == ["Ann", "Bob"]


def test_the_order_does_not_depend_on_the_chunk_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[str]] = []
    for chunk in (1 << 20, 3, 64, 1 << 20):
        monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / str(len(orders))))
        monkeypatch.setattr(documents, "CHUNK_CHARS", chunk)
        orders.append(documents_of(list_of("\n".join(NAMES), tmp_path), "all"))
    assert orders[1:] == orders[:1] * 3
    assert sorted(orders[0]) == sorted(name + "\n" for name in NAMES)


def test_a_list_opened_again_is_the_same(tmp_path: Path) -> None:
    one, other = (list_of("\n".join(NAMES), tmp_path) for _ in range(2))
    for split in SPLITS:
        assert documents_of(one, split) == documents_of(other, split)
    assert one.sha256 == other.sha256


def test_a_separate_validation_list_is_shuffled_too(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("\n\nd\ne\n\nf")
    corpus = list_of("\n".join(NAMES), tmp_path, val_path=str(tmp_path / "val.txt"))
    assert sorted(documents_of(corpus, "val")) == ["d\n", "e\n", "f\n"]
    assert sorted(documents_of(corpus, "train")) == [name + "\n" for name in NAMES]


def test_characters_are_counted_in_the_documents_only(tmp_path: Path) -> None:
    """The line ends of blank lines are not counted."""
    text = "\n\n\naa\nb\n\nab"
    corpus = list_of(text, tmp_path, vocab_min_count=3)
    assert (corpus.vocab.chars, corpus.n_unknown) == ("\na" + UNKNOWN, 2)
    data = DataConfig.model_validate({"path": str(tmp_path / "list.txt"), "documents": "lines"})
    facts = open_encoded(find_sources(data.path, data), data).facts
    counts = dict(zip(facts.chars, facts.counts, strict=True))
    assert counts == Counter("".join(lines_of(text)))


def test_the_hash_is_of_the_unshuffled_text_with_a_line_end_at_the_end(tmp_path: Path) -> None:
    expected = hashlib.sha256(b"b\n\na\n").hexdigest()
    for text in ("b\n\na", "b\n\na\n"):
        assert list_of(text, tmp_path).sha256 == expected


def test_a_list_of_bytes_has_the_lines_of_the_file(tmp_path: Path) -> None:
    lines = [b"\xff\xfe", b"caf\xe9", b"\xc3\xa9", b"\0"]
    corpus = list_of(b"\n\n".join(lines), tmp_path, unit="byte")
    ids, starts = corpus.split("all"), corpus.split("all").starts
    assert isinstance(ids, TextIds)
    assert starts is not None
    found = [ids[a:b].tobytes() for a, b in itertools.pairwise(starts.tolist())]
    assert sorted(found) == sorted(line + b"\n" for line in lines)
