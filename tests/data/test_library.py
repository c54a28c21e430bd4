"""Texts with a name: those that come with Python, and those that are downloaded."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from charlm.config import DataConfig
from charlm.data import library
from charlm.data.builtin import read_builtin
from charlm.data.corpus import Split, open_corpus
from charlm.data.sources import find_sources
from charlm.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def content(path: str) -> bytes:
    data = DataConfig(path=path)
    return b"".join(chunk for source in find_sources(data.path, data) for chunk in source.chunks())


# --- well-known texts ------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """$CHARLM_DATA, data/ and the cache's corpora, in the order of the search, all empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_DATA", str(tmp_path / "shared"))
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    folders = [tmp_path / "shared", tmp_path / "data", tmp_path / "cache" / "corpora"]
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


def test_a_known_text_is_searched_in_three_folders_in_order(folders: list[Path]) -> None:
    assert library.have("tinyshakespeare") is None
    for folder in folders[::-1]:
        (folder / "tinyshakespeare.txt").write_text(folder.name, encoding="utf-8")
        found = library.have("tinyshakespeare")
        assert found is not None
        assert found.resolve() == folder / "tinyshakespeare.txt"
        assert content("tinyshakespeare") == folder.name.encode()


def test_a_file_of_the_same_name_comes_before_a_known_text(
    folders: list[Path], tmp_path: Path
) -> None:
    (folders[0] / "tinyshakespeare.txt").write_text("known", encoding="utf-8")
    (tmp_path / "tinyshakespeare").write_text("my own", encoding="utf-8")
    assert content("tinyshakespeare") == b"my own"


@pytest.mark.parametrize("name", library.KNOWN)
def test_the_message_about_a_missing_text_says_in_one_line_how_to_get_it(
    folders: list[Path], name: str
) -> None:
    with pytest.raises(DataError) as caught:
        content(name)
    message = str(caught.value)
    assert "\n" not in message
    assert f"charlm data fetch {name} " in message
    assert library.KNOWN[name].url in message
    assert message.endswith(f"as {folders[-1] / library.KNOWN[name].file})")


def test_the_table_of_known_texts_is_consistent() -> None:
    for known in library.KNOWN.values():
        assert (known.sha256 is None) == (known.checked == "unknown")
        assert known.sha256 is None or len(bytes.fromhex(known.sha256)) == 32
        assert known.url.startswith(("https://", "http://"))
    files = [known.file for known in library.KNOWN.values()]
    assert len(set(files)) == len(files)


def test_tinyshakespeare_has_the_usual_split() -> None:
    if library.have("tinyshakespeare") is None:
        pytest.skip("tinyshakespeare is missing: charlm data fetch tinyshakespeare")
    corpus = open_corpus(DataConfig(path="tinyshakespeare"))
    known = library.KNOWN["tinyshakespeare"]
    assert (len(corpus), corpus.sha256) == (known.size, known.sha256)
    assert len(corpus.vocab) == 65
    assert [len(corpus.split(split)) for split in SPLITS] == [1_003_854, 111_540, 0]


# --- built-in texts ----------------------------------------------------------------------------


@pytest.fixture
def library_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the interpreter says is its standard library; empty."""
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    return tmp_path


def test_the_python_source_is_the_whole_library_without_its_tests_and_tables(
    library_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"a.py": "a = 1\n", "json/b.py": "# coding: latin-1\n# café\n", "z/y/x.py": "# €\n"}
    kept = {
        name: text.encode("latin-1" if "é" in text else "utf-8") for name, text in texts.items()
    }
    dropped = {"test/a.py", "lib/tests/b.py", "site-packages/c.py", "encodings/d.py", "e.txt"}
    bad = {"bad.py": b"\xff\xfe", "worse.py": b"# coding: no-such-coding\n", "empty.py": b""}
    for name, raw in (kept | dict.fromkeys(dropped, b"dropped\n") | bad).items():
        (library_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (library_folder / name).write_bytes(raw)

    order = sorted(texts, key=lambda name: hashlib.sha256(name.encode()).digest())
    expected = "\n".join(texts[name] for name in order)
    assert read_builtin("builtin:python") == expected
    assert content("builtin:python") == expected.encode()

    listing = list(library_folder.rglob("*.py"))  # in the order of the file system
    monkeypatch.setattr(Path, "rglob", lambda _self, _pattern: iter(listing[::-1]))
    assert read_builtin("builtin:python") == expected


def test_the_encoding_of_the_config_does_not_apply_to_a_built_in_text() -> None:
    data = DataConfig(path="builtin:python-topics", encoding="utf-16")
    assert open_corpus(data).sha256 == open_corpus(DataConfig(path="builtin:python-topics")).sha256


@pytest.mark.usefixtures("library_folder")
def test_a_python_without_its_source_is_reported() -> None:
    with pytest.raises(DataError, match=r"no Python source under .*; name a text file instead"):
        read_builtin("builtin:python")


def test_this_python_has_enough_source_to_train_on() -> None:
    text = read_builtin("builtin:python")
    assert len(text) > 3_000_000
    assert "def " in text


def test_the_help_topics_are_the_same_prose_at_every_call() -> None:
    text = read_builtin("builtin:python-topics")
    assert len(text) > 100_000
    assert text == read_builtin("builtin:python-topics")


def test_a_python_without_help_topics_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="this Python has no module pydoc_data"):
        read_builtin("builtin:python-topics")
