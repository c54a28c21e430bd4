"""Sources of bytes: which are found, in which order, and which cannot be read."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import random
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import sources as module
from charlm.data.sources import Source, describe_sources, find_sources, stamp_of
from charlm.errors import DataError

RAW = random.Random(0).randbytes(10_000)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def find(*path: str | Path, **options: Any) -> list[Source]:
    data = DataConfig(path=tuple(map(str, path)), **options)
    return find_sources(data.path, data)


def read(*path: str | Path, **options: Any) -> list[bytes]:
    return [b"".join(source.chunks()) for source in find(*path, **options)]


def refusal(*path: str | Path, **options: Any) -> str:
    """The message about a text that cannot be read. It must be one line."""
    with pytest.raises(DataError) as caught:
        read(*path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fill(folder: Path, *names: str) -> None:
    """Files that contain their names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user who may not read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


# --- files -----------------------------------------------------------------------------------


@given(raw=st.binary(max_size=40), chunk=st.integers(1, 7))
def test_a_whole_file_is_read_in_chunks(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, chunk: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "chunks"
    path.write_bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        chunks = list(find(path)[0].chunks())
    assert chunks == [raw[i : i + chunk] for i in range(0, len(raw), chunk)]


@pytest.mark.parametrize("suffix", [*PACKERS, ".GZ"])
def test_a_compressed_file_is_decompressed(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix.lower()]
    path = tmp_path / f"text{suffix}"
    path.write_bytes(pack(RAW) + pack(b"more"))  # two compressed streams are read as one
    assert read(path) == [RAW + b"more"]


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("kept", [5, 20, 5000, -1])
@pytest.mark.parametrize("suffix", PACKERS)
def test_a_compressed_file_cut_short_is_refused(
    tmp_path: Path, suffix: str, kept: int, found: bool
) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_bytes(PACKERS[suffix](RAW)[:kept])
    message = refusal(tmp_path if found else path)
    assert message.startswith(f"{path}: this compressed file is cut short")
    assert ("data.exclude" in message) == found


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_damaged_compressed_file_is_refused_wherever_the_damage_is(
    tmp_path: Path, suffix: str
) -> None:
    path, packed = tmp_path / f"text{suffix}", PACKERS[suffix](RAW)
    path.write_bytes(packed)
    assert read(path) == [RAW]
    for position in (0, 1, 100, len(packed) // 2, len(packed) - 9, len(packed) - 1):
        damaged = bytearray(packed)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        assert re.match(
            rf"{re.escape(str(path))}: (this compressed file is|cannot read this text: \w)",
            refusal(path),
        )


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_file_that_is_not_compressed_as_its_name_says_is_refused(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"text{suffix}"
    path.write_text("not compressed at all", encoding="utf-8")
    assert refusal(path).startswith(f"{path}: ")
    assert "data.exclude" in refusal(tmp_path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "text.txt")
    source = find(tmp_path / "text.txt")[0]
    source.path.chmod(0) if source.path else None
    with as_nobody(), pytest.raises(DataError, match=r"text\.txt: .*: Permission denied$"):
        list(source.chunks())


def test_a_folder_that_may_not_be_read_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to others
        Path(name).chmod(0o755)
        fill(Path(name), "a.txt", "closed/b.txt")
        (Path(name) / "closed").chmod(0)
        with as_nobody():
            message = refusal(name)
        (Path(name) / "closed").chmod(0o755)
    assert message.startswith(name)
    assert "Permission denied" in message


def test_only_a_regular_file_has_a_stamp(tmp_path: Path) -> None:
    fill(tmp_path, "text.txt")
    os.mkfifo(tmp_path / "pipe")
    assert find(tmp_path / "text.txt")[0].path == tmp_path / "text.txt"
    assert find(tmp_path / "pipe")[0].path is None
    assert find("builtin:python")[0].path is None
    assert find("-")[0].path is None


def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(RAW * 20,))
    writer.start()
    assert read(tmp_path / "pipe") == [RAW * 20]
    writer.join()


@pytest.mark.parametrize("change", ["time", "size", "content", "replaced", "nothing"])
def test_a_stamp_changes_with_every_change(tmp_path: Path, change: str) -> None:
    fill(tmp_path, "a", "b")
    path = tmp_path / "a"
    os.utime(path, ns=(1, 1))
    before = stamp_of(path)
    if change == "time":
        os.utime(path, ns=(1, 2))
    elif change == "size":
        path.write_text("aa", encoding="utf-8")
        os.utime(path, ns=(1, 1))
    elif change == "content":
        path.write_text("b", encoding="utf-8")
    elif change == "replaced":
        os.utime(tmp_path / "b", ns=(1, 1))
        (tmp_path / "b").replace(path)
    assert (stamp_of(path) != before) == (change != "nothing")
    status = path.stat()
    assert stamp_of(path)[-2:] == [status.st_mtime_ns, status.st_ctime_ns]


# --- folders and globs -----------------------------------------------------------------------


def shuffle_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system list every folder in another order each time."""
    scan, rng = os.scandir, random.Random(1)

    @contextmanager
    def shuffled(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scan(path) as entries:
            found = list(entries)
            yield rng.sample(found, len(found))

    monkeypatch.setattr(os, "scandir", shuffled)


def test_a_folder_is_read_in_the_order_of_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ["B", "a/1", "a/b/2", "a/c", "a-b", "a.txt", "b/a", "é"]  # part by part
    fill(tmp_path, *random.Random(0).sample(order, len(order)))
    shuffle_folders(monkeypatch)
    for _ in range(5):
        assert read(tmp_path) == [name.encode() for name in order]


def test_a_glob_is_read_in_the_order_of_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ["B.c", "a/1.c", "a/b/2.c", "a-b.c", "b.c"]
    fill(tmp_path, *order, "a/x.h", ".hidden/a.c", ".b.c")
    (tmp_path / "folder.c").mkdir()
    shuffle_folders(monkeypatch)
    for _ in range(5):
        assert read(tmp_path / "**" / "*.c") == [name.encode() for name in order]
    assert read(tmp_path / "*.c") == [b"B.c", b"a-b.c", b"b.c"]


def test_a_file_that_a_glob_finds_twice_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, "a/b/c/1.txt", "a/2.txt")
    assert sorted(read(tmp_path / "**" / "**" / "*.txt")) == [b"a/2.txt", b"a/b/c/1.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    fill(tmp_path, "[a].txt", "a.txt")
    assert read(tmp_path / "[a].txt") == [b"[a].txt"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a", ".b", "c/.d", ".e/f", "c/.g/h", "c/i")
    assert read(tmp_path) == [b"a", b"c/i"]
    assert read(tmp_path / ".e") == [b".e/f"]  # unless the user names it


FILES = ("a.c", "b.h", "lib/a.c", "lib/deep/x.c", "lib/deep/y.txt", "lib2/a.c", "z")


@pytest.mark.parametrize(
    ("include", "exclude", "selected"),
    [
        ("*.c", (), ["a.c", "lib/a.c", "lib/deep/x.c", "lib2/a.c"]),  # by name
        (["*.h", "z"], (), ["b.h", "z"]),
        ("lib/*", (), ["lib/a.c", "lib/deep/x.c", "lib/deep/y.txt"]),  # by path
        ("lib", (), ["lib/a.c", "lib/deep/x.c", "lib/deep/y.txt"]),  # by folder
        ("lib/deep", (), ["lib/deep/x.c", "lib/deep/y.txt"]),
        ((), "lib*", ["a.c", "b.h", "z"]),
        ((), ["lib/deep", "?.h", "z"], ["a.c", "lib/a.c", "lib2/a.c"]),
        ((), "a.c", ["b.h", "lib/deep/x.c", "lib/deep/y.txt", "z"]),
        ((), "lib/a.c", ["a.c", "b.h", "lib/deep/x.c", "lib/deep/y.txt", "lib2/a.c", "z"]),
        ("*.c", "lib2", ["a.c", "lib/a.c", "lib/deep/x.c"]),
        ("*.C", (), []),  # case-sensitive
        ((), "?", ["a.c", "b.h", "lib/a.c", "lib/deep/x.c", "lib/deep/y.txt", "lib2/a.c"]),
        ((), ".*", list(FILES)),
    ],
)
def test_files_of_a_folder_are_included_and_excluded_by_name_path_and_folder(
    tmp_path: Path, include: str | list[str], exclude: str | list[str], selected: list[str]
) -> None:
    fill(tmp_path, *FILES)
    if selected:
        found = read(tmp_path, include=include, exclude=exclude)
        assert found == [name.encode() for name in selected]
    else:
        assert refusal(tmp_path, include=include, exclude=exclude) == (
            f"{tmp_path}: this folder has no text that data.include and data.exclude select among "
            "its 7 files that are not hidden"
        )


def test_files_of_a_glob_are_excluded(tmp_path: Path) -> None:
    fill(tmp_path, *FILES)
    assert read(tmp_path / "**" / "*.c", exclude=["x.*", "*/lib2/*"]) == [b"a.c", b"lib/a.c"]
    assert "no file matches" in refusal(tmp_path / "*.c", exclude="a*")
    # data.exclude does not apply to the folders before the wildcard.
    assert read(tmp_path / "*.c", exclude=tmp_path.name) == [b"a.c"]


def test_named_files_are_read_in_the_given_order_and_never_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "b", "a", "folder/1", "folder/2")
    names = ("b", "a", "folder", "b")
    found = read(*(tmp_path / name for name in names), include="[12]", exclude=["2", "a"])
    assert found == [b"b", b"a", b"folder/1", b"b"]


@pytest.mark.parametrize("hidden", [False, True])
def test_a_folder_without_a_text_is_refused(tmp_path: Path, hidden: bool) -> None:
    (tmp_path / "empty").mkdir()
    if hidden:
        fill(tmp_path, ".hidden")
    assert refusal(tmp_path) == f"{tmp_path}: this folder has no text"


def test_a_glob_without_a_match_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    assert refusal(tmp_path / "*.txt") == f"{tmp_path}/*.txt: no file matches this pattern"


def test_a_broken_link_in_a_folder_is_refused_and_can_be_excluded(tmp_path: Path) -> None:
    fill(tmp_path, "a", "z")
    (tmp_path / "m").symlink_to("nothing")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/m: cannot read this text: No such file or directory")
    assert "data.exclude" in message
    assert read(tmp_path, exclude="m") == [b"a", b"z"]
    assert "data.exclude" not in refusal(tmp_path / "m")


PARTS = st.sampled_from(["**", "*", "a", "b", "file", "?", "f*", ".*", "[!b]"])


@given(
    names=st.lists(st.text("ab./", max_size=9).map(lambda name: name.strip("/")), max_size=12),
    pattern=st.lists(PARTS, min_size=1, max_size=5),
)
def test_a_glob_finds_the_files_that_python_finds(names: list[str], pattern: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder, "x", name.replace("..", "."), "file")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        whole = str(Path(folder, "x", *pattern))
        paths = map(Path, glob.glob(whole, recursive=True))  # noqa: PTH207
        expected = sorted({path for path in paths if path.is_file()})
        if expected and glob.has_magic(whole):
            assert [source.path for source in find(whole)] == expected


# --- links -----------------------------------------------------------------------------------


def with_links(folder: Path) -> Path:
    """A folder with links to a file, to a folder, and to a folder above them."""
    fill(folder, "in/a.txt", "in/b/c.txt", "out/d.txt", "out/deep/e.txt")
    (folder / "in" / "f.txt").symlink_to(folder / "out" / "d.txt")
    (folder / "in" / "link").symlink_to(folder / "out")
    (folder / "in" / "b" / "circle").symlink_to(folder / "in")
    return folder / "in"


@pytest.mark.parametrize("way", [".", "**", "**/*.txt", "**/**/*"])
def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path, way: str) -> None:
    root = with_links(tmp_path)
    sources = find(root / way)
    found = [source.path for source in sources]
    assert found == [root / "a.txt", root / "b/c.txt", root / "f.txt"]
    (notice,) = [notice for source in sources for notice in source.notices]
    assert notice == (
        f"{root / way}: links to folders are not followed (2, such as {root}/b/circle); to read "
        "one, name it in data.path"
    )


def test_links_that_are_excluded_or_not_reached_are_not_noticed(tmp_path: Path) -> None:
    root = with_links(tmp_path)
    sources = find(root, exclude=["link", "circle"])
    sources += find(root / "*.txt")
    assert [source.notices for source in sources if source.notices] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("link", ["link/d.txt", "link/deep/e.txt"]),  # as the notice says
        ("link/*", ["link/d.txt"]),
        ("link/**", ["link/d.txt", "link/deep/e.txt"]),
        ("[l]ink/*", []),
        ("*/d.txt", []),
        ("**/link/d.txt", ["link/d.txt"]),
        ("**/circle/b/*.txt", ["b/circle/b/c.txt"]),
        ("**/circle/*/circle/a.txt", ["b/circle/b/circle/a.txt"]),
        ("**/circle/**/*.txt", ["b/circle/a.txt", "b/circle/b/c.txt", "b/circle/f.txt"]),
    ],
)
def test_a_link_to_a_folder_is_followed_if_the_path_names_it(
    tmp_path: Path, name: str, expected: list[str]
) -> None:
    root = with_links(tmp_path)
    if expected:
        assert [source.path for source in find(root / name)] == [root / path for path in expected]
    else:
        assert refusal(root / name).startswith(
            f"{root / name}: no file matches this pattern; links"
        )


def test_a_list_of_names_follows_the_same_rule(tmp_path: Path) -> None:
    root = with_links(tmp_path)
    assert read(root / "link", root / "f.txt", root / "b") == [
        *(b"out/d.txt", b"out/deep/e.txt", b"out/d.txt", b"in/b/c.txt")
    ]


def test_a_folder_of_nothing_but_links_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    message = refusal(tmp_path / "in")
    assert message.startswith(f"{tmp_path}/in: this folder has no text; links to folders are not")


@pytest.mark.parametrize("way", [".", "**", "*", "*/*"])
def test_pipes_in_a_folder_are_left_out_with_a_notice(tmp_path: Path, way: str) -> None:
    fill(tmp_path, "in/a", "in/z")
    os.mkfifo(tmp_path / "in" / "pipe")
    (tmp_path / "in" / "zero").symlink_to("/dev/zero")
    sources = find(tmp_path / way if way == "*/*" else tmp_path / "in" / way)
    assert [source.name for source in sources] == [f"{tmp_path}/in/a", f"{tmp_path}/in/z"]
    assert next(n for source in sources for n in source.notices).endswith(
        "pipes, sockets and devices are left out (2)"
    )
    assert b"".join(b"".join(source.chunks()) for source in sources) == b"in/ain/z"


def test_a_folder_of_nothing_but_pipes_says_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path) == (
        f"{tmp_path}: no regular file is here: pipes, sockets and devices are left out (1); name "
        "one to read it"
    )


@pytest.mark.parametrize("exclude", ["closed", "in/closed", "*/closed"])
@pytest.mark.parametrize("way", [".", "**", "**/*.txt"])
def test_an_excluded_folder_is_not_entered(way: str, exclude: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to others
        root = Path(name)
        root.chmod(0o755)
        fill(root, "a.txt", "in/closed/b.txt")
        (root / "in" / "closed").chmod(0)
        with as_nobody():
            message = refusal(root / way)
            found = read(root / way, exclude=exclude)
        (root / "in" / "closed").chmod(0o755)
    assert found == [b"a.txt"]
    assert message == (
        f"{root}/in/closed: cannot read this folder: Permission denied; make it readable, or leave "
        "it out with data.exclude"
    )


def test_a_deep_folder_is_searched(tmp_path: Path) -> None:
    folders = [f"{tmp_path}{'/d' * depth}" for depth in range(1, 1_200)]  # Python recurses less
    for folder in folders:
        Path(folder).mkdir()
    fill(tmp_path, "a.txt")
    assert read(tmp_path) == [b"a.txt"]
    for folder in reversed(folders):
        Path(folder).rmdir()


# --- names out of a checkpoint ---------------------------------------------------------------


def untrusted(*path: str | Path, named: Sequence[str] = (), **options: Any) -> list[bytes]:
    """What is read of names that a checkpoint gives; the user gave those in `named`."""
    data = DataConfig(path=tuple(map(str, path)), **options)
    return [b"".join(source.chunks()) for source in find_sources(data.path, data, named)]


@contextmanager
def special(kind: str, folder: Path) -> Iterator[str]:
    """The name of something that is not a regular file."""
    if kind == "pipe":
        os.mkfifo(folder / "pipe")
        yield str(folder / "pipe")
    elif kind == "link":
        (folder / "link").symlink_to("/dev/zero")
        yield str(folder / "link")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as it:
            with chdir(folder):  # the name of a socket must be short
                it.bind("socket")
            yield str(folder / "socket")
    else:
        yield kind


SPECIAL = ["/dev/zero", "/dev/null", "/dev/tty", "-", "/dev/stdin", "pipe", "link", "socket"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_name_out_of_a_checkpoint_opens_regular_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fill(tmp_path, "a.txt")
    opened: list[str] = []
    reading, writing = os.pipe()  # never written to
    with standard_input(reading), special(kind, tmp_path) as name:
        monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))
        monkeypatch.setattr(io, "FileIO", lambda path, *_, **__: opened.append(path))
        for path in ([name], [tmp_path / "a.txt", name]):
            data = DataConfig(path=tuple(map(str, path)))
            source = find_sources(data.path, data, named=[str(tmp_path / "a.txt")])[-1]
            assert (source.path, source.once) == (None, True)
            with pytest.raises(DataError) as caught:
                next(source.chunks())
        monkeypatch.undo()
    os.close(writing)
    assert opened == []
    shown = "standard input" if name == "-" else name
    assert str(caught.value).startswith(f"{shown}: not a regular file, and only the checkpoint")
    assert str(caught.value).endswith(f" data={name}")


def test_a_name_out_of_a_checkpoint_may_be_that_of_files(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b/c.txt")
    (tmp_path / "z.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "link.txt").symlink_to("a.txt")
    names = ("a.txt", "link.txt", "z.txt.gz", "b", "**/c.txt")
    assert untrusted(*(tmp_path / name for name in names)) == [
        *(b"a.txt", b"a.txt", b"packed", b"b/c.txt", b"b/c.txt")
    ]
    assert untrusted("builtin:python-topics")[0].startswith(b"The")


def test_a_name_that_the_user_gave_too_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = str(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(RAW,))
    writer.start()
    assert untrusted(pipe, named=[pipe]) == [RAW]
    writer.join()


@pytest.mark.parametrize("found", [False, True])
def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, found: bool) -> None:
    fill(tmp_path, "a.txt")
    data = DataConfig(path=str(tmp_path if found else tmp_path / "a.txt"))
    (source,) = find_sources(data.path, data, None if found else ())
    (tmp_path / "a.txt").unlink()
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"a\.txt: cannot read this text: not a regular file"):
        list(source.chunks())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_files_of_proc_are_empty_for_a_checkpoint() -> None:
    """Some of them never end, such as trace_pipe. All have the size 0."""
    assert untrusted("/proc/self/maps") == [b""]
    assert read("/proc/self/maps")[0]


# --- names and mistakes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.txt", "missing.txt: cannot read this text: No such file or directory"),
        ("ther.txt", "ther.txt: cannot read this text: No such file or directory; did you mean"),
        ("there.txt/text.txt", "Not a directory"),
        ("tinyshakespear", "did you mean the well-known text tinyshakespeare?"),
        (
            "builtin:pyton",
            "no such built-in text; available: builtin:python, builtin:python-topics",
        ),
        ("long" * 100, "File name too long"),
        ("~no-such-user/text.txt", "~no-such-user/text.txt: "),
        ("a\0b", "'a\\x00b': a path cannot contain a NUL"),
    ],
)
def test_a_text_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "there.txt")
    assert words in refusal(path)
    assert words in refusal("there.txt", path)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path, "text.txt")
    assert read("~/text.txt") == read("~/*.txt") == read("~") == [b"text.txt"]


def test_several_sources_are_described_by_the_first(tmp_path: Path) -> None:
    fill(tmp_path, *map(str, range(1_001)))
    assert describe_sources(find(tmp_path / "7")) == f"{tmp_path}/7"
    assert describe_sources(find(tmp_path)) == f"{tmp_path}/0 and 1,000 more"


# --- standard input --------------------------------------------------------------------------


@contextmanager
def standard_input(descriptor: int) -> Iterator[None]:
    """Make `descriptor` the standard input of this process. It is closed afterwards."""
    own = os.dup(0)
    os.dup2(descriptor, 0)
    os.close(descriptor)
    try:
        yield
    finally:
        os.dup2(own, 0)
        os.close(own)


def test_standard_input_is_read_as_bytes_and_not_closed(tmp_path: Path) -> None:
    (tmp_path / "piped").write_bytes(RAW)
    with standard_input(os.open(tmp_path / "piped", os.O_RDONLY)):
        assert read("-") == [RAW]
        assert os.fstat(0).st_size == len(RAW)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_slow_pipe_is_read_to_its_end(blocking: bool) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, blocking)  # another process may have set it

    def write() -> None:
        for i in range(0, len(RAW), 1000):
            time.sleep(0.001)
            os.write(writing, RAW[i : i + 1000])
        os.close(writing)

    with standard_input(reading):
        writer = threading.Thread(target=write)
        writer.start()
        try:
            assert read("-") == [RAW]
        finally:
            writer.join()


def test_a_terminal_as_standard_input_is_refused() -> None:
    ours, theirs = os.openpty()
    with standard_input(theirs):
        assert "nothing is piped to standard input" in refusal("-")
    os.close(ours)


def test_a_closed_standard_input_is_reported() -> None:
    own = os.dup(0)
    os.close(0)
    try:
        message = refusal("-")
    finally:
        os.dup2(own, 0)
        os.close(own)
    assert message.startswith("standard input: cannot read this text")
