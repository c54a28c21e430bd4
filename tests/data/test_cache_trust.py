"""The cache uses no links, no files that others can change, and no facts that do not fit."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import verify
from charlm.data.corpus import open_corpus
from charlm.data.sources import stamp_of
from charlm.errors import DataError
from charlm.files import build_prefix
from tests.data.test_cache import NAMES, documents_of, open_, open_unread, text_of, texts_in, write

TEXT = "naïve café\n"
TEMPORARY = f"{build_prefix()}01234567"
OWN_NAMES = ("facts.json", "ids.bin", "ids.narrow", "starts.bin", "shuffled")
pytestmark = pytest.mark.usefixtures("cache")


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files below a folder; of a link its target."""
    return {
        str(path.relative_to(folder)): os.fsencode(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A folder of the user, with files that have the names of files in the cache."""
    folder = tmp_path / "precious"
    for inner in (folder, folder / TEMPORARY, folder / ("a" * 64)):
        inner.mkdir()
        for name in OWN_NAMES:
            write(inner / name, "dear")
    return folder


@pytest.fixture
def key(text: Path, cache: Path) -> Path:
    """The folder of an encoded text."""
    open_(text)
    (name,) = texts_in(cache)
    return cache / name


def replace_by_link(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)


# --- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["", "nothing"])
def test_a_link_in_the_place_of_a_text_is_removed_and_not_followed(
    text: Path, key: Path, precious: Path, target: str
) -> None:
    before = contents(precious)
    replace_by_link(key, precious / target)
    encoded = open_(text)
    assert text_of(encoded) == TEXT
    assert len(encoded.notices) == (not target)  # a link to nothing is no text
    for notice in encoded.notices:
        assert "it is a symbolic link; the text is encoded again" in notice
    assert contents(precious) == before
    assert not key.is_symlink()
    assert open_unread(text).notices == []


def test_a_link_with_the_name_of_a_build_folder_is_not_followed(
    text: Path, cache: Path, precious: Path
) -> None:
    before = contents(precious)
    cache.mkdir(parents=True)
    (cache / TEMPORARY).symlink_to(precious)
    assert text_of(open_(text)) == TEXT
    assert contents(precious) == before


def test_links_in_an_abandoned_build_folder_are_removed_and_not_followed(
    text: Path, cache: Path, precious: Path
) -> None:
    before = contents(precious)
    (cache / TEMPORARY).mkdir(parents=True)
    for name in OWN_NAMES:
        (cache / TEMPORARY / name).symlink_to(precious / name)
    assert text_of(open_(text)) == TEXT
    assert contents(precious) == before
    assert not (cache / TEMPORARY).exists()


@pytest.mark.parametrize("name", ["facts.json", "ids.bin", "starts.bin"])
def test_a_file_that_is_a_link_is_not_read_and_not_followed(
    tmp_path: Path, cache: Path, precious: Path, name: str
) -> None:
    path = write(tmp_path / "names.txt", NAMES)
    open_(path, documents="lines")
    (key,) = (cache / each for each in texts_in(cache))
    shutil.copy(key / name, precious / name)  # the link leads to the right content
    before = contents(precious)
    replace_by_link(key / name, precious / name)
    encoded = open_(path, documents="lines")
    assert documents_of(encoded) == ["anna\n", "bo\n", "cléo\n", "dan\n"]
    (notice,) = encoded.notices
    assert f"its {name} is not used: it is a symbolic link" in notice
    assert contents(precious) == before


def test_a_cache_whose_folder_of_texts_is_a_link_is_not_used(
    text: Path, cache: Path, precious: Path
) -> None:
    before = contents(precious)
    cache.parent.mkdir()
    cache.symlink_to(precious)
    encoded = open_(text)
    assert text_of(encoded) == TEXT
    (notice,) = encoded.notices
    assert notice.startswith(f"{cache}: it is a symbolic link, so the text is encoded for this run")
    assert contents(precious) == before


def test_a_cache_may_be_a_link(text: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    cache.parent.symlink_to(tmp_path / "large disk")
    assert open_(text).notices == []
    assert text_of(open_unread(text)) == TEXT


def test_notes_are_not_written_through_a_link(text: Path, cache: Path, precious: Path) -> None:
    before = contents(precious)
    cache.mkdir(parents=True)
    (cache / "seen").symlink_to(precious)
    assert open_(text).notices == []
    assert contents(precious) == before


@pytest.mark.parametrize(
    "name",
    ["tmp-x", "tmp-0123456789ABCDEF", f"{TEMPORARY}0", "tmp-0123456789abcdeg", "tmp-", "other"],
)
def test_a_folder_with_another_name_is_not_touched(text: Path, cache: Path, name: str) -> None:
    (cache / name).mkdir(parents=True)
    for own in OWN_NAMES:
        write(cache / name / own, "dear")
    before = contents(cache / name)
    open_(text)
    assert contents(cache / name) == before


OTHER_NAMES = ("facts.txt", "facts.json.bak", "ids.csv", "starts.txt", "shuffled.bin", "letter")


def test_only_files_with_the_names_of_the_cache_are_removed(text: Path, key: Path) -> None:
    for folder in (key, key.parent / TEMPORARY):
        folder.mkdir(exist_ok=True)
        for name in OTHER_NAMES:
            write(folder / name, "dear")
    write(key / "facts.json", "damaged")
    with pytest.raises(DataError) as caught:
        open_(text)
    message = str(caught.value)
    assert message.startswith(f"{key}: there are other files in the place of the encoded text; ")
    for folder in (key, key.parent / TEMPORARY):
        assert contents(folder).keys() == set(OTHER_NAMES)
    for name in OTHER_NAMES:  # what the message says to do
        (key / name).rename(key.parent.parent / name)
    assert text_of(open_(text)) == TEXT


def test_a_file_in_the_place_of_a_text_is_reported_and_stays(text: Path, key: Path) -> None:
    shutil.rmtree(key)
    write(key, "dear")
    with pytest.raises(DataError, match="there are other files in the place of the encoded text"):
        open_(text)
    assert key.read_bytes() == b"dear"


# --- others may write --------------------------------------------------------------------------


def give_to_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path.chmod(path.stat().st_mode | 0o002)
    return "every user can write to it"


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(path, 65_534, -1)
    return "it belongs to another user"


EXPOSURES = [give_to_all, give_away]


@pytest.mark.parametrize("exposed", EXPOSURES)
@pytest.mark.parametrize("where", [".", "encoded"])
def test_a_cache_that_others_can_change_is_neither_read_nor_written(
    text: Path, key: Path, monkeypatch: pytest.MonkeyPatch, exposed: Callable[..., str], where: str
) -> None:
    root, before = key.parents[1], contents(key.parents[1])
    reason = exposed(root / where, monkeypatch)
    encoded = open_(text)
    assert text_of(encoded) == TEXT
    (notice,) = encoded.notices
    assert f": {reason}, so the text is encoded for this run only; " in notice
    assert "CHARLM_CACHE" in notice
    assert notice.startswith(str(root))
    assert "\n" not in notice
    assert contents(root) == before
    with pytest.raises(AssertionError, match="should not have been called"):
        open_unread(text)


@pytest.mark.parametrize("name", [".", "facts.json", "ids.bin"])
def test_a_text_that_others_can_change_is_encoded_again(
    text: Path, key: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    give_to_all(key / name, monkeypatch)
    encoded = open_(text)
    assert text_of(encoded) == TEXT
    (notice,) = encoded.notices
    assert notice.endswith("is not used: every user can write to it; the text is encoded again")
    assert open_unread(text).notices == []


@pytest.mark.parametrize("kind", ["text", "list"])
def test_a_user_whose_new_files_all_can_change_has_a_private_cache(
    tmp_path: Path, cache: Path, kind: str
) -> None:
    path = write(tmp_path / "names.txt", NAMES)
    options: dict[str, Any] = {"documents": "lines"} if kind == "list" else {}
    before = os.umask(0)
    try:
        assert open_(path, **options).notices == []
    finally:
        os.umask(before)
    assert open_unread(path, **options).notices == []
    for each in (cache.parent, *cache.parent.rglob("*")):
        assert not each.stat().st_mode & 0o002, each


# --- forged facts ------------------------------------------------------------------------------


def read_facts(key: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((key / "facts.json").read_bytes())["facts"]
    return facts


def forge(key: Path, facts: Any) -> None:
    """Write facts with the right hash."""
    stored = json.dumps({"seal": verify.seal(facts), "facts": facts})
    (key / "facts.json").write_text(stored, encoding="utf-8")


def restamp(key: Path, facts: dict[str, Any], stamps: bool = True) -> None:
    """Make the recorded hashes and perhaps the stamps those of the files."""
    for name, file in facts["files"].items():
        file["sha256"] = hashlib.sha256((key / name).read_bytes()).hexdigest()
        file["stamp"] = stamp_of(key / name) if stamps else [0, 0, 0, 0, 0]


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "format": lambda facts: {"format": facts["format"] + 1},
    "an unknown key": lambda _: {"more": 1},
    "no characters": lambda _: {"chars": "", "counts": []},
    "a character twice": lambda facts: {"chars": facts["chars"][:-1] + facts["chars"][0]},
    "a character less": lambda facts: {"chars": facts["chars"][:-1]},
    "a lone surrogate": lambda facts: {"chars": facts["chars"][:-1] + "\ud800"},
    "a count less": lambda facts: {"counts": facts["counts"][:-1]},
    "a wrong sum": lambda facts: {"counts": [facts["counts"][0] + 1, *facts["counts"][1:]]},
    "a negative count": lambda facts: {"counts": [-1, *facts["counts"][1:]]},
    "a count of 0": lambda facts: {
        "counts": [0, facts["counts"][0] + facts["counts"][1], *facts["counts"][2:]]
    },
    "a huge count": lambda facts: {"counts": [10**4000, *facts["counts"][1:]]},
    "counts that are no integers": lambda facts: {"counts": [float(it) for it in facts["counts"]]},
    **{
        f"the type {dtype}": lambda _, dtype=dtype: {"dtype": dtype}  # type: ignore[misc]
        for dtype in ("uint16", "int8", "O", "U9", "V1", "", "no", "(9,)u1", "u1,u1")
    },
    "no files": lambda _: {"files": {}},
    "starts that a text does not have": lambda facts: {
        "files": facts["files"] | {"starts.bin": facts["files"]["ids.bin"]}
    },
    "a file elsewhere": lambda facts: {"files": {"../../text.txt": facts["files"]["ids.bin"]}},
    "a device": lambda facts: {"files": {"/dev/zero": facts["files"]["ids.bin"]}},
    "another text": lambda _: {"sha256": "0" * 64},
}


def assert_encoded_again(path: Path, key: Path, **options: Any) -> None:
    encoded = open_(path, **options)
    assert "".join(sorted(text_of(encoded))) == "".join(sorted(path.read_text("utf-8")))
    (notice,) = encoded.notices
    assert notice.startswith(f"{key}: its ")
    assert notice.endswith("; the text is encoded again")
    assert open_unread(path, **options).notices == []


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_facts_that_do_not_fit_are_not_believed(text: Path, key: Path, name: str) -> None:
    facts = read_facts(key)
    forge(key, facts | FORGERIES[name](facts))
    assert_encoded_again(text, key)


def test_forged_characters_that_are_no_bytes_are_not_believed(text: Path, cache: Path) -> None:
    open_(text, unit="byte")
    (key,) = (cache / name for name in texts_in(cache))
    facts = read_facts(key)
    forge(key, facts | {"chars": facts["chars"][:-1] + "\u0100"})
    encoded = open_(text, unit="byte")
    assert len(encoded.notices) == 1
    assert text_of(encoded).encode("latin-1") == text.read_bytes()


def test_facts_of_a_text_are_not_believed_for_a_list(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "names.txt", "ab\ncd\n")
    open_(path, documents="lines")
    (key,) = (cache / name for name in texts_in(cache))
    facts = read_facts(key)
    forge(key, facts | {"files": {"ids.bin": facts["files"]["ids.bin"]}})
    assert_encoded_again(path, key, documents="lines")


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"\xff", b'{"facts": {}}', b"9" * 6000])
def test_facts_that_are_not_json_are_not_believed(text: Path, key: Path, raw: bytes) -> None:
    (key / "facts.json").write_bytes(raw)
    assert_encoded_again(text, key)


@pytest.mark.parametrize("name", ["facts.json", "ids.bin"])
def test_a_pipe_is_not_read(text: Path, key: Path, name: str) -> None:
    (key / name).unlink()
    os.mkfifo(key / name)
    assert_encoded_again(text, key)


def swap_chars(facts: dict[str, Any]) -> dict[str, Any]:
    return facts | {"chars": facts["chars"][1] + facts["chars"][0] + facts["chars"][2:]}


def swap_counts(facts: dict[str, Any]) -> dict[str, Any]:
    return facts | {"counts": sorted(facts["counts"])}


@pytest.mark.parametrize("change", [swap_chars, swap_counts])
def test_facts_that_came_from_elsewhere_are_compared_with_the_ids(
    tmp_path: Path, cache: Path, change: Callable[..., dict[str, Any]]
) -> None:
    path = write(tmp_path / "text.txt", "aaabbc")
    open_(path)
    (key,) = (cache / name for name in texts_in(cache))
    facts = change(read_facts(key))
    restamp(key, facts, stamps=False)
    forge(key, facts)
    assert_encoded_again(path, key)


def test_ids_without_a_character_that_came_from_elsewhere_are_not_used(
    text: Path, key: Path
) -> None:
    write(key / "ids.bin", "\x7f" * len(TEXT))
    facts = read_facts(key)
    restamp(key, facts, stamps=False)
    forge(key, facts)
    assert_encoded_again(text, key)


def test_ids_without_a_character_are_an_error_when_they_are_read(text: Path, key: Path) -> None:
    """The facts have the right stamps, so that nothing is seen when the text is opened."""
    write(key / "ids.bin", "\0" * (len(TEXT) - 1) + "\x7f")
    facts = read_facts(key)
    restamp(key, facts)
    forge(key, facts)
    corpus = open_corpus(DataConfig(path=str(text)))
    assert corpus.notices == []
    ids = corpus.split("all")
    with pytest.raises(DataError) as caught:
        ids[:]
    message = str(caught.value)
    assert message.startswith(f"{key.parent}: an encoded text in this folder was altered; ")
    shutil.rmtree(key.parent)  # what the message says to do
    assert len(open_corpus(DataConfig(path=str(text))).split("all")[:]) == len(TEXT)


LIST = "ab\ncd\nef\n"
STARTS = [[0, 3, 6, 8], [0, 3, 6, 10], [1, 3, 6, 9], [0, 6, 3, 9], [0, 3, 3, 9], [0], [9], [-1, 9]]
STARTS += [[0, 2**63 - 1, -(2**63), 9]]


@pytest.mark.parametrize("starts", STARTS)
def test_starts_that_do_not_cover_the_text_in_order_are_not_used(
    tmp_path: Path, cache: Path, starts: list[int]
) -> None:
    path = write(tmp_path / "names.txt", LIST)
    open_(path, documents="lines")
    (key,) = (cache / name for name in texts_in(cache))
    (key / "starts.bin").write_bytes(np.array(starts, np.int64).tobytes())
    facts = read_facts(key)
    restamp(key, facts)
    forge(key, facts)
    assert_encoded_again(path, key, documents="lines")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_forged_value_gives_the_text_or_valid_ids(
    text: Path, key: Path, data: st.DataObject
) -> None:
    facts: Any = read_facts(key)
    name = data.draw(st.sampled_from(sorted(facts)))
    value = facts[name]
    if isinstance(value, list) and data.draw(st.booleans()):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(JSON)
    elif isinstance(value, str) and data.draw(st.booleans()):
        facts[name] = "".join(data.draw(st.permutations(value)))
    elif isinstance(value, dict) and data.draw(st.booleans()):
        value["ids.bin"] = data.draw(JSON)
    else:
        facts[name] = data.draw(JSON)
    forge(key, facts)
    encoded = open_(text)
    if name not in ("chars", "counts"):  # such facts are believed if they fit the files
        assert text_of(encoded) == TEXT
    corpus = open_corpus(DataConfig(path=str(text)))
    assert int(corpus.split("all")[:].max()) < len(corpus.vocab)


# --- file systems without locks ----------------------------------------------------------------


@pytest.mark.parametrize("code", ["ENOSYS", "ENOTSUP", "EOPNOTSUPP", "ENOLCK"])
def test_without_locks_a_text_is_encoded_and_no_build_folder_is_removed(
    text: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    (cache / TEMPORARY).mkdir(parents=True)
    write(cache / TEMPORARY / "ids.bin", "another process is writing this")
    before = contents(cache)
    monkeypatch.setattr(fcntl, "flock", refuse)
    encoded = open_(text)
    assert (text_of(encoded), encoded.notices) == (TEXT, [])
    assert before.items() <= contents(cache).items()
    assert text_of(open_unread(text)) == TEXT


def test_files_that_cannot_be_flushed_are_still_written(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    assert open_(text).notices == []
    assert text_of(open_unread(text)) == TEXT
