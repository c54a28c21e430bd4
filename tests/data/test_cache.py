"""Encoded texts on the disk: they are found again, are complete, and are checked for damage."""

from __future__ import annotations

import errno
import gc
import gzip
import hashlib
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from charlm import files
from charlm.config import DataConfig
from charlm.data import cache as module
from charlm.data import verify
from charlm.data.build import hash_of
from charlm.data.cache import bytes_to_read, open_encoded
from charlm.data.sources import Source, find_sources, stamp_of
from charlm.data.verify import Encoded
from charlm.errors import DataError
from charlm.files import locked
from tests.conftest import ROOT
from tests.data.test_sources import as_nobody, standard_input

pytestmark = pytest.mark.usefixtures("cache")
NAMES = "anna\nbo\n\ncléo\ndan"


@pytest.fixture(autouse=True)
def removable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders in which rmtree may delete. A test that would delete elsewhere fails first."""
    folders, rmtree = [tmp_path.resolve()], shutil.rmtree

    def guarded(path: Any, *arguments: Any, **options: Any) -> None:
        real = Path(path).resolve()
        assert any(real == folder or folder in real.parents for folder in folders), real
        rmtree(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", guarded)
    return folders


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def find(path: str | Path, **options: Any) -> tuple[list[Source], DataConfig]:
    data = DataConfig(path=str(path), **options)
    return find_sources(data.path, data), data


def open_(path: str | Path, expected: str | None = None, **options: Any) -> Encoded:
    return open_encoded(*find(path, **options), expected)


def open_unread(path: str | Path, expected: str | None = None, **options: Any) -> Encoded:
    """Open a text that must be in the cache. Fails if a source is opened."""
    sources, data = find(path, **options)
    return open_encoded([replace(source, open=fail) for source in sources], data, expected)


def fail(*_arguments: Any, **_options: Any) -> Any:
    raise AssertionError("this should not have been called")


def text_of(encoded: Encoded) -> str:
    return "".join(encoded.facts.chars[i] for i in encoded.ids)


def documents_of(encoded: Encoded) -> list[str]:
    assert encoded.starts is not None
    whole, starts = text_of(encoded), encoded.starts.tolist()
    return sorted(whole[start:end] for start, end in pairwise(starts))


def texts_in(cache: Path) -> set[str]:
    """The folders of encoded texts, and anything else that was left there."""
    return {path.name for path in cache.glob("*")} - {"seen"}


# --- found again -----------------------------------------------------------------------------


def test_a_text_is_not_read_again(text: Path, cache: Path) -> None:
    assert text_of(open_(text)) == "naïve café\n"
    again = open_unread(text)
    assert text_of(again) == "naïve café\n"
    assert again.notices == []
    assert again.starts is None
    assert len(texts_in(cache)) == 1


def test_several_files_are_not_read_again_until_one_changes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in "abc":
        write(folder / name, name)
    assert text_of(open_(folder)) == "a\nb\nc"
    assert text_of(open_unread(folder)) == "a\nb\nc"
    write(folder / "b", "x")
    assert text_of(open_(folder)) == "a\nx\nc"
    write(folder / "d", "d")
    assert text_of(open_(folder)) == "a\nx\nc\nd"
    assert text_of(open_(folder, exclude="x*")) == "a\nx\nc\nd"
    assert text_of(open_(folder, exclude="a")) == "x\nc\nd"


def test_a_list_is_not_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "names.txt", NAMES)
    first, again = (load(path, documents="lines") for load in (open_, open_unread))
    for encoded in (first, again):
        assert documents_of(encoded) == ["anna\n", "bo\n", "cléo\n", "dan\n"]
    assert text_of(first) == text_of(again)


def test_a_text_with_only_a_new_time_is_the_same(text: Path, cache: Path) -> None:
    open_(text)
    before = {path: stamp_of(path) for path in cache.glob("*/ids.bin")}
    os.utime(text)
    with pytest.raises(AssertionError, match="should not have been called"):
        open_unread(text)
    assert text_of(open_(text)) == "naïve café\n"
    assert {path: stamp_of(path) for path in cache.glob("*/ids.bin")} == before
    assert len(before) == 1
    open_unread(text)


def test_a_copy_of_a_text_is_the_same_text(text: Path, tmp_path: Path, cache: Path) -> None:
    open_(text)
    (tmp_path / "copy.gz").write_bytes(gzip.compress(text.read_bytes()))
    assert text_of(open_(tmp_path / "copy.gz")) == "naïve café\n"
    assert len(texts_in(cache)) == 1


def test_a_link_that_is_decompressed_is_another_text(tmp_path: Path) -> None:
    packed = gzip.compress(b"the text")
    (tmp_path / "blob").write_bytes(packed)
    (tmp_path / "link.gz").symlink_to("blob")
    assert text_of(open_(tmp_path / "blob", unit="byte")).encode("latin-1") == packed
    assert text_of(open_(tmp_path / "link.gz", unit="byte")) == "the text"


def test_the_number_of_bytes_to_read(text: Path, tmp_path: Path) -> None:
    assert bytes_to_read(*find(text)) == 13
    open_(text)
    assert bytes_to_read(*find(text)) == 0
    assert bytes_to_read(*find(text, newlines="lf")) == 13
    assert bytes_to_read(*find("builtin:python")) == 0  # unknown


@pytest.mark.parametrize(
    ("option", "value", "raw"),
    [
        ("separator", " + ", b"a"),
        ("documents", "lines", b"a\nb\n"),
        ("unit", "byte", b"caf\xc3\xa9"),
        ("encoding", "latin-1", b"caf\xc3\xa9"),
        ("errors", "replace", b"caf\xe9"),
        ("normalize", "NFC", b"e\xcc\x81\xef\xac\x81"),
        ("normalize", "NFKC", b"e\xcc\x81\xef\xac\x81"),
        ("newlines", "lf", b"a\r\nb\r"),
    ],
)
def test_a_text_read_in_another_way_is_another_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, raw: bytes
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1").write_bytes(raw)
    (folder / "2").write_bytes(raw)

    def result(**options: Any) -> tuple[str, list[str]] | str:
        try:
            encoded = open_(folder, **options)
        except DataError as error:
            return str(error)
        return text_of(encoded), documents_of(encoded) if encoded.starts is not None else []

    fresh = []
    for i, options in enumerate([{}, {option: value}]):
        monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / f"fresh{i}"))
        fresh.append(result(**options))
    assert fresh[0] != fresh[1]
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "shared"))
    for _ in range(2):
        assert [result(), result(**{option: value})] == fresh


def test_every_setting_that_changes_how_bytes_are_read_is_in_the_key() -> None:
    splitting = {
        "val_path",
        "test_path",
        "val_fraction",
        "test_fraction",
        "vocab_min_count",
        "vocab_size",
    }
    finding = {"path", "include", "exclude"}
    reading = DataConfig.model_fields.keys() - splitting - finding
    named: Any = {name: name for name in reading}
    data = DataConfig.model_construct(**named)
    assert sorted(module._options(data)) == sorted(reading)


# --- changed ---------------------------------------------------------------------------------


def test_a_text_of_the_same_size_with_another_content_is_another_text(text: Path) -> None:
    for content in ("1234567", "7654321", "1234567"):
        write(text, content)
        assert text_of(open_(text)) == content


@pytest.fixture
def coarse_clock(text: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk that gives the text the time that the test sets, at first 1000 s; also a clock."""
    clock = SimpleNamespace(now=1000.0, written=1000.0)
    clock.time = lambda: clock.now

    def stamp(path: Path) -> list[int]:
        if path != text:
            return stamp_of(path)
        return [*stamp_of(path)[:3], *[round(clock.written * 1e6) * 1000] * 2]

    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "stamp_of", stamp)
    monkeypatch.setattr(module, "_CLOCK_TICK", 0.1)
    return clock


@pytest.mark.parametrize("grain", [0.004, 1.0, 2.0])
@pytest.mark.parametrize("first", [1000.1, 1001.9])
def test_a_text_rewritten_in_place_is_never_read_as_before(
    text: Path,
    coarse_clock: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    grain: float,
    first: float,
) -> None:
    """On disks that store times in steps of `grain` seconds, for many times between the writes."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # to take less time

    def write_at(now: float, content: str) -> None:
        coarse_clock.now, coarse_clock.written = now, now // grain * grain
        with text.open("r+b") as file:
            file.write(content.encode())

    write(text, "1234567")
    for before, after in itertools.product((0, 0.9, 1.1, 2.1, 3.5), (0, 0.05, 0.9, 1.9)):
        first += 100
        write_at(first, "1234567")
        coarse_clock.now += before
        assert text_of(open_(text)) == "1234567"
        write_at(coarse_clock.now + after, "7654321")
        assert text_of(open_(text)) == "7654321"


@pytest.mark.parametrize(
    ("written", "age", "trusted"),
    [
        (1000.123456, 0.09, False),
        (1000.123456, 0.11, True),
        (1000.0, 0.11, False),  # whole seconds: the disk may store no others
        (1000.0, 2.9, False),
        (1000.0, 3.1, True),
    ],
)
def test_a_text_is_not_read_again_once_its_times_are_older_than_the_tick_of_its_disk(
    text: Path, coarse_clock: SimpleNamespace, written: float, age: float, trusted: bool
) -> None:
    coarse_clock.written, coarse_clock.now = written, written + age
    size = text.stat().st_size
    open_(text)
    assert bytes_to_read(*find(text)) == (0 if trusted else size)


def test_a_text_that_changed_within_one_clock_tick_is_read_again(
    text: Path, coarse_clock: SimpleNamespace
) -> None:
    for content in ("1234567", "7654321"):
        write(text, content)
        assert text_of(open_(text)) == content
    coarse_clock.now += 10
    open_(text)
    assert text_of(open_unread(text)) == "7654321"


def test_a_text_that_changed_during_a_long_read_is_read_again(
    text: Path, coarse_clock: SimpleNamespace
) -> None:
    sources, data = find(write(text, "1234567"))

    def read_slowly() -> IO[bytes]:
        with sources[0].open() as file:
            before = file.read()
        with text.open("r+b") as file:  # in place, so that the inode and the size stay
            file.write(b"7654321")
        coarse_clock.now += 10  # reading took a long time
        return io.BytesIO(before)

    assert text_of(open_encoded([replace(sources[0], open=read_slowly)], data)) == "1234567"
    assert text_of(open_(text)) == "7654321"


def test_a_text_that_changes_while_it_is_read_is_read_again(text: Path) -> None:
    sources, data = find(write(text, "before"))

    def change() -> IO[bytes]:
        file = sources[0].open()
        write(text, "afterwards")
        return file

    open_encoded([replace(sources[0], open=change)], data)
    assert text_of(open_(text)) == "afterwards"
    assert text_of(open_unread(text)) == "afterwards"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_text_that_is_deleted_is_not_reported_as_a_full_disk(text: Path, when: str) -> None:
    sources, data = find(text)

    def delete_after_open() -> IO[bytes]:
        file = sources[0].open()
        text.unlink()
        return file

    if when == "before":
        text.unlink()
    deleted = sources if when == "before" else [replace(sources[0], open=delete_after_open)]
    if when == "after":  # all of it was read
        assert text_of(open_encoded(deleted, data)) == "naïve café\n"
        return
    with pytest.raises(DataError) as caught:
        open_encoded(deleted, data)
    assert str(caught.value).startswith(f"{text}: cannot read this text: ")
    assert "CHARLM_CACHE" not in str(caught.value)


# --- damaged ---------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def alter(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def alter_secretly(path: Path) -> None:
    times = path.stat()
    alter(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by(raw: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(raw)

    return damage


def forge(path: Path) -> None:
    """Other facts with the old hash."""
    path.write_text(path.read_text("utf-8").replace('"chars": "', '"chars": "X'), "utf-8")


def age(path: Path) -> None:
    """Facts of another version of charlm, with the right hash."""
    body = json.loads(path.read_text("utf-8"))["facts"]
    del body["counts"]
    path.write_text(json.dumps({"seal": verify.seal(body), "facts": body}), "utf-8")


DAMAGES: list[Callable[[Path], None]] = [cut, lengthen, alter, alter_secretly, remove, empty]


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in ("ids.bin", "starts.bin", "facts.json") for damage in DAMAGES]
    + [("facts.json", replace_by(raw)) for raw in (b"[]", b"{}", b"1", b'{"seal": "", "facts": 0}')]
    + [("facts.json", damage) for damage in (forge, age)],
)
def test_a_damaged_text_is_encoded_again_with_one_notice(
    tmp_path: Path, cache: Path, name: str, damage: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "names.txt", NAMES)
    open_(path, documents="lines")
    (folder,) = (cache / key for key in texts_in(cache))
    time.sleep(0.01)  # more than one tick of the file system's clock
    damage(folder / name)
    encoded = open_(path, documents="lines")
    assert documents_of(encoded) == ["anna\n", "bo\n", "cléo\n", "dan\n"]
    (notice,) = encoded.notices
    assert notice.startswith(f"{folder}: its {name} ")
    assert notice.endswith("; the text is encoded again")
    assert texts_in(cache) == {folder.name}
    again = open_unread(path, documents="lines")
    assert documents_of(again) == ["anna\n", "bo\n", "cléo\n", "dan\n"]
    assert again.notices == []


def test_a_damaged_text_is_encoded_again_from_a_copy_of_its_file(
    text: Path, tmp_path: Path, cache: Path
) -> None:
    open_(text)
    (folder,) = (cache / key for key in texts_in(cache))
    time.sleep(0.01)
    cut(folder / "ids.bin")
    copy = Path(shutil.copy(text, tmp_path / "copy.txt"))
    assert text_of(open_(copy)) == text_of(open_unread(copy)) == "naïve café\n"
    assert texts_in(cache) == {folder.name}


@pytest.mark.parametrize("name", ["ids.bin", "starts.bin"])
def test_a_file_of_another_size_is_not_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It may be a sparse file of any size."""
    lines = write(tmp_path / "lines.txt", "aa\nbb\ncc\n")
    open_(lines, documents="lines")
    (path,) = cache.glob(f"*/{name}")
    os.truncate(path, 1 << 40)
    hashed: list[IO[bytes]] = []
    monkeypatch.setattr(verify, "hash_of", hashed.append)
    assert len(open_(lines, documents="lines").notices) == 1
    assert hashed == []


def test_a_text_whose_folder_was_deleted_is_encoded_again(text: Path, cache: Path) -> None:
    open_(text)
    for key in texts_in(cache):
        shutil.rmtree(cache / key)
    encoded = open_(text)
    assert (text_of(encoded), encoded.notices) == ("naïve café\n", [])


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xfe", b"no such key", b"0" * 63, b"0" * 64, b"a" * 300, b"\0" * 64),
        *(b".", b"seen", b"../../precious", b"PRECIOUS"),
    ],
)
def test_a_damaged_note_is_ignored(text: Path, tmp_path: Path, cache: Path, content: bytes) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    write(precious / "letter.txt", "dear")
    other = write(tmp_path / "other.txt", "other")
    open_(text)
    (note,) = (cache / "seen").iterdir()
    open_(other)
    before = texts_in(cache)
    note.write_bytes(content.replace(b"PRECIOUS", bytes(precious)))
    assert text_of(open_(text)) == "naïve café\n"
    assert (precious / "letter.txt").exists()
    assert texts_in(cache) == before
    assert text_of(open_unread(text)) == "naïve café\n"
    assert text_of(open_unread(other)) == "other"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: Path, cache: Path) -> Path:
    """The cache, copied to another folder, where its files have other inodes and times."""
    open_(text)
    shutil.copytree(cache, tmp_path / "moved" / "encoded", copy_function=shutil.copyfile)
    shutil.rmtree(cache)
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "moved"))
    return tmp_path / "moved" / "encoded"


def test_a_copied_text_is_hashed_once_and_used(
    copied: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def recorded_hash(file: IO[bytes]) -> str:
        hashed.append(Path(file.name).name)
        return hash_of(file)

    monkeypatch.setattr(verify, "hash_of", recorded_hash)
    for _ in range(3):
        encoded = open_unread(text)
        assert (text_of(encoded), encoded.notices) == ("naïve café\n", [])
        assert hashed == ["ids.bin"]


def test_a_copied_text_that_was_altered_is_not_used(copied: Path, text: Path) -> None:
    (ids,) = copied.glob("*/ids.bin")
    alter(ids)
    encoded = open_(text)
    assert text_of(encoded) == "naïve café\n"
    assert len(encoded.notices) == 1


# --- several processes -------------------------------------------------------------------------

BUILDER = """
import io, os, sys
from pathlib import Path
from charlm.config import DataConfig
from charlm.data import cache
from charlm.data.sources import Source
cache._CLOCK_TICK = 0.0
path = Path(sys.argv[1])

class Slow(io.BytesIO):
    def read(self, n):
        if self.tell():
            print("reading", flush=True)
            sys.stdin.readline()
        return super().read(n)

source = Source(str(path), lambda: Slow(path.read_bytes()), path)
encoded = cache.open_encoded([source], DataConfig(path=str(path)))
print("".join(encoded.facts.chars[i] for i in encoded.ids), len(encoded.notices))
"""


@contextmanager
def builder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that encodes a text. It stops in the middle until it gets a line on its input."""
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, path],
        cwd=ROOT, encoding="utf-8", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            assert process.stdout.readline() == "reading\n"
            yield process
        finally:
            process.kill()


def test_processes_can_encode_the_same_text_at_the_same_time(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "text.txt", "text")
    with builder(path) as one, builder(path) as two:
        assert len(texts_in(cache)) == 2
        for process in (one, two):
            assert process.communicate("\n")[0] == "text 0\n"
            assert process.returncode == 0
    assert text_of(open_unread(path)) == "text"
    assert len(texts_in(cache)) == 1
    assert not list(cache.glob("tmp*"))


def test_the_folder_of_a_killed_process_is_not_used_and_is_removed(
    tmp_path: Path, cache: Path
) -> None:
    path = write(tmp_path / "text.txt", "text")
    with builder(path) as process:
        process.send_signal(signal.SIGKILL)
    (left,) = texts_in(cache)
    assert left.startswith("tmp-")
    with pytest.raises(AssertionError, match="should not have been called"):
        open_unread(path)
    encoded = open_(path)
    assert (text_of(encoded), encoded.notices) == ("text", [])
    assert len(texts_in(cache)) == 1
    assert left not in texts_in(cache)


def test_the_folder_of_a_running_process_is_not_removed(tmp_path: Path, cache: Path) -> None:
    path, other = write(tmp_path / "text.txt", "text"), write(tmp_path / "other.txt", "other")
    with builder(path) as process:
        (working,) = texts_in(cache)
        assert text_of(open_(other)) == "other"
        assert working in texts_in(cache)
        assert process.communicate("\n")[0] == "text 0\n"
    assert len(texts_in(cache)) == 2
    assert text_of(open_unread(path)) == "text"


def test_a_folder_that_disappears_during_the_clean_up_is_ignored(
    text: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = cache / f"{files.build_prefix()}01234567"
    finished.mkdir(parents=True)

    def late(folder: Path, wait: bool, **options: Any) -> Any:
        if folder == finished and folder.exists():
            folder.rmdir()  # its process has just renamed it
        return locked(folder, wait, **options)

    monkeypatch.setattr(files, "locked", late)
    encoded = open_(text)
    assert (text_of(encoded), encoded.notices) == ("naïve café\n", [])


def test_a_folder_is_locked_until_the_lock_is_released(tmp_path: Path) -> None:
    with locked(tmp_path, wait=False) as ours:
        assert ours
        with locked(tmp_path, wait=False) as again:
            assert not again
    with locked(tmp_path, wait=True) as ours:
        assert ours


# --- no space ----------------------------------------------------------------------------------


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, removable: list[Path]) -> Iterator[Path]:
    """A folder that other users can open, unlike tmp_path. It has `cache` and `temporary`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        removable.append(folder.resolve())
        folder.chmod(0o755)
        for path in (folder / "cache", folder / "temporary"):
            path.mkdir()
            if not os.geteuid():
                os.chown(path, 65_534, 65_534)  # see as_nobody
        monkeypatch.setenv("CHARLM_CACHE", str(folder / "cache"))
        monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
        yield folder


def test_a_text_is_encoded_for_one_run_if_the_cache_cannot_be_written(shared: Path) -> None:
    path = write(shared / "text.txt", "text")
    (shared / "cache").chmod(0o555)
    with as_nobody():
        encoded = open_(path)
    assert text_of(encoded) == "text"
    (notice,) = encoded.notices
    assert notice.startswith(f"{shared}/cache/encoded: cannot write here (Permission denied)")
    assert "CHARLM_CACHE" in notice
    assert len(list((shared / "temporary").iterdir())) == 1
    ids = encoded.ids
    del encoded
    gc.collect()
    assert not list((shared / "temporary").iterdir())
    assert len(ids) == 4  # the open file can still be read
    assert not list((shared / "cache").iterdir())


def test_a_cache_that_cannot_be_written_can_be_read(shared: Path) -> None:
    path = write(shared / "text.txt", "text")
    with as_nobody():
        open_(path)
    for folder in (shared / "cache").rglob("*"):
        folder.chmod(0o555)
        os.utime(folder)
    (shared / "cache").chmod(0o555)
    with as_nobody():
        encoded = open_unread(path)
    assert (text_of(encoded), encoded.notices) == ("text", [])
    assert not list((shared / "temporary").iterdir())


def test_a_cache_path_that_is_a_file_gives_a_notice(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHARLM_CACHE", str(text))
    encoded = open_(text)
    assert text_of(encoded) == "naïve café\n"
    assert len(encoded.notices) == 1


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Limit every file to `size` bytes, as on a disk that is nearly full."""
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, own[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)


WIDENING = "ab" * 4000 + "".join(map(chr, range(0x4E00, 0x4E00 + 300)))


@pytest.mark.parametrize("temporarily", [False, True])
@pytest.mark.parametrize(
    ("content", "options", "limit"),
    [("ab" * 5000, {}, limit) for limit in (0, 100, 4500, 8500, 9999)]
    + [(WIDENING, {}, limit) for limit in (7000, 9000, 16_599)]
    + [("a\n" * 500, {"documents": "lines"}, limit) for limit in (900, 2000, 4007)],
)
def test_a_full_disk_is_reported_and_nothing_is_left(
    tmp_path: Path,
    temporary: Path,
    cache: Path,
    content: str,
    options: dict[str, str],
    limit: int,
    temporarily: bool,
) -> None:
    path = write(tmp_path / "text.txt", content)
    if temporarily:
        write(cache.parent, "no folder")
    with file_limit(limit), pytest.raises(DataError) as caught:
        open_(path, None, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot write the encoded text here: File too large; free some space" in message
    assert "CHARLM_CACHE" in message
    assert texts_in(cache) == set()
    assert not list(temporary.iterdir())
    encoded = open_(path, **options)
    expected = sorted(content) if options else list(content)
    assert (sorted if options else list)(text_of(encoded)) == expected


def test_a_disk_that_is_full_at_the_end_is_reported_and_nothing_is_left(
    text: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError) as caught:
            open_(text)
    assert f"{cache}: cannot write the encoded text here: No space left" in str(caught.value)
    assert "CHARLM_CACHE" in str(caught.value)
    assert texts_in(cache) == set()
    assert text_of(open_(text)) == "naïve café\n"


def test_a_note_that_cannot_be_written_only_costs_time(
    text: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        for _ in range(2):
            assert text_of(open_(text)) == "naïve café\n"
    assert text_of(open_(text)) == text_of(open_unread(text)) == "naïve café\n"


def test_a_note_that_is_a_link_is_not_followed(text: Path, tmp_path: Path, cache: Path) -> None:
    open_(text)
    (note,) = (cache / "seen").iterdir()
    note.unlink()
    note.symlink_to(write(tmp_path / "precious.txt", "precious"))
    assert text_of(open_(text)) == text_of(open_unread(text)) == "naïve café\n"
    assert (tmp_path / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize("raw", [b"caf\xe9", b"\0", b""])
def test_a_text_that_is_refused_leaves_no_file(text: Path, cache: Path, raw: bytes) -> None:
    text.write_bytes(raw)
    for _ in range(2):
        with pytest.raises(DataError, match=str(text)):
            open_(text)
    assert texts_in(cache) == set()
    assert not (cache / "seen").exists()


# --- texts that were piped in --------------------------------------------------------------------


def pipe_in(text: str) -> int:
    """The read end of a pipe that holds a text."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(text.encode())
    return reading


def test_a_text_that_was_piped_in_is_found_again_by_its_hash() -> None:
    with standard_input(pipe_in("piped é")):
        piped = open_("-")
    assert text_of(piped) == "piped é"
    sha256 = hashlib.sha256("piped é".encode()).hexdigest()
    assert piped.facts.sha256 == sha256
    again = open_unread("-", expected=sha256)
    assert (text_of(again), again.notices) == ("piped é", [])
    with pytest.raises(AssertionError, match="should not have been called"):
        open_unread("-")
    with pytest.raises(AssertionError, match="should not have been called"):
        open_unread("-", expected=sha256, documents="lines")


def test_a_piped_text_that_is_not_in_the_cache_is_read_from_the_pipe() -> None:
    with standard_input(pipe_in("another")):
        assert text_of(open_("-", expected=hashlib.sha256(b"gone").hexdigest())) == "another"


@pytest.mark.parametrize("name", ["text.txt", "-", "standard input"])
def test_the_expected_hash_is_not_used_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = open_(write(Path(name), "before").resolve()).facts.sha256
    write(Path(name), "afterwards")
    assert text_of(open_(f"./{name}", expected)) == "afterwards"


def test_a_text_that_is_not_a_file_is_read_every_time(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    for content in ("one", "two", "two"):
        monkeypatch.setattr("charlm.data.sources.read_builtin", lambda _, it=content: it)
        assert text_of(open_("builtin:python")) == content
    assert len(texts_in(cache)) == 2
