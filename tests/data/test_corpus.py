"""Texts: where they come from, how they are split, what is wrong with them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import library
from charlm.data.corpus import Corpus, Split, open_corpus, read_file, read_text
from charlm.data.vocab import Vocab
from charlm.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def corpus_of(text: str, folder: Path, val: float = 0.1, test: float = 0.0) -> Corpus:
    path = folder / "text.txt"
    path.write_bytes(text.encode())
    return open_corpus(DataConfig(path=str(path), val_fraction=val, test_fraction=test))


# --- a corpus --------------------------------------------------------------------------------


@given(
    n=st.integers(1, 500),
    val=st.floats(0, 0.99, allow_subnormal=False),
    test=st.floats(0, 0.99, allow_subnormal=False),
)
def test_the_splits_are_contiguous_and_together_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, n: int, val: float, test: float
) -> None:
    if val + test >= 1:
        val, test = val / 2, test / 2
    text = "".join(chr(0x4E00 + i) for i in range(n))  # every character once
    corpus = corpus_of(text, tmp_path_factory.getbasetemp(), val, test)
    parts = [corpus.vocab.decode(corpus.split(split)) for split in SPLITS]
    assert "".join(parts) == text == corpus.vocab.decode(corpus.split("all"))
    train, _, held_out = map(len, parts)
    assert abs(train - n * (1 - val - test)) <= 1
    assert abs(held_out - n * test) <= 1
    assert held_out > 0 or test * n < 1


def test_a_corpus_knows_its_text(tmp_path: Path) -> None:
    text = "naïve café\n"
    corpus = corpus_of(text, tmp_path)
    assert len(corpus) == len(text)
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.source == str(tmp_path / "text.txt")
    assert corpus.vocab == Vocab.of(text)
    assert corpus.vocab.decode(corpus.ids) == text


def test_splits_are_views_and_not_copies(tmp_path: Path) -> None:
    corpus = corpus_of("abc" * 100, tmp_path)
    assert all(corpus.split(split).base is not None for split in SPLITS)


def test_a_known_vocabulary_keeps_its_ids(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("zebra", encoding="utf-8")
    corpus = open_corpus(DataConfig(path=str(tmp_path / "text.txt")), known=Vocab("bz"))
    assert corpus.vocab.chars == "bzaer"
    assert corpus.ids.tolist() == [1, 3, 0, 4, 2]


@pytest.mark.parametrize(
    "text", ["a\r\nb\r\n", "a\rb\r", "a\nb\n", "a\r\r\n\x85\u2028b", "\ufeffa"]
)
def test_line_ends_and_all_other_characters_are_kept(tmp_path: Path, text: str) -> None:
    corpus = corpus_of(text, tmp_path)
    assert corpus.vocab.decode(corpus.ids) == text
    assert read_file(tmp_path / "text.txt") == text


def test_tinyshakespeare_has_the_usual_split() -> None:
    try:
        corpus = open_corpus(DataConfig(path="tinyshakespeare"))
    except DataError as missing:
        pytest.skip(str(missing))
    known = library.KNOWN["tinyshakespeare"]
    assert (len(corpus), corpus.sha256) == (known.size, known.sha256)
    assert len(corpus.vocab) == 65
    assert [len(corpus.split(split)) for split in SPLITS] == [1_003_854, 111_540, 0]


# --- what is wrong with a file ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this text is empty"),
        (b"\xffabc", "not UTF-8 at byte 0 (0xff)"),
        (b"x" * 1234 + b"caf\xe9 au lait", "not UTF-8 at byte 1,237 (0xe9)"),
        (b"abc\xe2\x82", "not UTF-8 at byte 3 (0xe2)"),
        (b"\xed\xa0\x80", "not UTF-8 at byte 0 (0xed)"),  # a surrogate
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_text(str(path))
    assert str(caught.value).startswith(f"{path}: {words}")


def test_how_to_convert_a_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(DataError) as caught:
        read_file(path)
    assert f"iconv -f latin1 -t utf-8 {path} > old-utf8.txt" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.txt", "missing.txt: cannot read this text: No such file or directory"),
        (".", ".: cannot read this text: Is a directory"),
        ("there.txt/text.txt", "Not a directory"),
        ("tinyshakespear", "did you mean the corpus tinyshakespeare?"),
        ("builtin:pyton", "no such built-in text; there are builtin:python, builtin:python-topics"),
        ("long" * 100, "File name too long"),
    ],
)
def test_a_text_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.txt").write_text("text", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert words in str(caught.value)


# --- texts with a name -----------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """$CHARLM_DATA and data/, both still without the corpus."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_DATA", str(tmp_path / "shared"))
    folders = (tmp_path / "shared", tmp_path / "data")
    for folder in folders:
        folder.mkdir()
    return folders


def test_a_known_corpus_is_looked_for_in_charlm_data_and_then_in_data(
    places: tuple[Path, Path],
) -> None:
    shared, data = (folder / "tinyshakespeare.txt" for folder in places)
    data.write_text("from data", encoding="utf-8")
    assert read_text("tinyshakespeare") == "from data"
    shared.write_text("from CHARLM_DATA", encoding="utf-8")
    assert read_text("tinyshakespeare") == "from CHARLM_DATA"


def test_a_file_of_the_same_name_comes_before_a_known_corpus(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    (places[0] / "tinyshakespeare.txt").write_text("from CHARLM_DATA", encoding="utf-8")
    (tmp_path / "tinyshakespeare").write_text("my own", encoding="utf-8")
    assert read_text("tinyshakespeare") == "my own"


@pytest.mark.parametrize("variable", ["set", "empty", "unset"])
def test_a_known_corpus_that_is_nowhere_says_in_one_line_how_to_get_it(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    if variable == "empty":
        monkeypatch.setenv("CHARLM_DATA", "")
    elif variable == "unset":
        monkeypatch.delenv("CHARLM_DATA")
    with pytest.raises(DataError) as caught:
        read_text("tinyshakespeare")
    message = str(caught.value)
    assert "\n" not in message
    assert (f"{places[0]}/tinyshakespeare.txt" in message) == (variable == "set")
    url = library.KNOWN["tinyshakespeare"].url
    assert message.endswith(f"mkdir -p data && curl -L -o data/tinyshakespeare.txt {url}")


def test_the_python_source_is_all_of_the_library_but_its_tests_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"a.py": "a = 1\n", "json/b.py": "# coding: latin-1\n# café\n", "z/y/x.py": "# €\n"}
    kept = {
        name: text.encode("latin-1" if "é" in text else "utf-8") for name, text in texts.items()
    }
    dropped = {"test/a.py", "lib/tests/b.py", "site-packages/c.py", "encodings/d.py", "e.txt"}
    bad = {"bad.py": b"\xff\xfe", "worse.py": b"# coding: no-such-coding\n", "empty.py": b""}
    for name, content in (kept | dict.fromkeys(dropped, b"dropped\n") | bad).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))

    order = sorted(texts, key=lambda name: hashlib.sha256(name.encode()).digest())
    expected = "\n".join(texts[name] for name in order)
    assert read_text("builtin:python") == expected

    listing = list(tmp_path.rglob("*.py"))  # whatever order the file system has
    monkeypatch.setattr(Path, "rglob", lambda _self, _pattern: iter(listing[::-1]))
    assert read_text("builtin:python") == expected


def test_a_python_without_its_source_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    with pytest.raises(DataError, match=r"no Python source under .*; name a text file instead"):
        read_text("builtin:python")


def test_this_python_has_source_enough_to_train_on() -> None:
    text = read_text("builtin:python")
    assert len(text) > 3_000_000
    assert "def " in text


def test_the_help_topics_are_the_same_prose_at_every_call() -> None:
    text = read_text("builtin:python-topics")
    assert len(text) > 100_000
    assert text == read_text("builtin:python-topics")


def test_a_python_without_help_topics_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="this Python comes without pydoc_data"):
        read_text("builtin:python-topics")
