"""Fetching a text from a server on this machine, which can be made to behave badly."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from charlm.data import download as module
from charlm.data.download import download
from charlm.errors import DataError

TEXT = random.Random(0).randbytes(300_000)  # several pieces, and nothing repeats in it
OTHER = random.Random(1).randbytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves one content under every path."""

    daemon_threads = False  # so that closing waits for them, and no socket is left open

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = TEXT
        self.status = 200
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.says_length = True
        self.ranges = True  # Range is understood
        self.if_range = True  # and so is If-Range
        self.first_range_shift = 0  # a mistake in where a range begins
        self.breaks_after: int | None = None  # bytes of an answer
        self.go_on = threading.Event()  # until then there are only headers
        self.go_on.set()
        self.requests: list[dict[str, str]] = []  # the headers of each, lower case
        self.sent = 0  # bytes of content

    def url(self, path: str = "text.txt") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may go away in the middle."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, headers = self.server, {k.lower(): v for k, v in self.headers.items()}
        server.requests.append(headers)
        status, body, extra = server.status, server.content, {}
        whole = len(body)
        same = headers.get("if-range") in (None, server.etag, server.modified)
        if status == 200 and server.ranges and "range" in headers and (same or not server.if_range):
            start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
            if start >= whole:
                status, body, extra = 416, b"", {"Content-Range": f"bytes */{whole}"}
            else:
                start += server.first_range_shift
                extra = {"Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
                status, body = 206, body[start:]
        self._answer(status, body, extra)

    def _answer(self, status: int, body: bytes, extra: dict[str, str]) -> None:
        server = self.server
        self.send_response(status)
        signs = {"ETag": server.etag, "Last-Modified": server.modified}
        length = {"Content-Length": str(len(body))} if server.says_length else {}
        for name, value in {**signs, **length, **extra}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        server.go_on.wait(60)
        body = body[: server.breaks_after]
        server.sent += len(body)  # before the client can go on
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def error(*arguments: Any, sha256: str | None = None, **options: Any) -> str:
    """The message of a download that fails, which must be one line."""
    with pytest.raises(DataError) as caught:
        download(*arguments, sha256=sha256, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def break_off(server: Server, folder: Path, after: int = 100_000) -> None:
    """Let a download end after so many bytes of content, and the server be well again."""
    server.breaks_after = after
    assert "broken off" in error(server.url(), folder, "a.txt")
    server.breaks_after = None


# --- a whole download --------------------------------------------------------------------------


@pytest.mark.parametrize("sha256", [None, sha(TEXT), sha(TEXT).upper()])
def test_a_file_is_fetched_whole_and_nothing_else_is_left(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], sha256: str | None
) -> None:
    folder = tmp_path / "new" / "folder"
    path = download(server.url(), folder, "a.txt", sha256=sha256)
    assert path == folder / "a.txt"
    assert path.read_bytes() == TEXT
    assert names(folder) == ["a.txt"]
    assert len(server.requests) == 1
    assert server.requests[0]["accept-encoding"] == "identity"
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_there_is_returned_as_it_is(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    path = download(server.url(), tmp_path, "a.txt", sha256=sha(TEXT))
    assert path.read_text() == "mine"
    assert names(tmp_path) == ["a.txt"]
    assert server.requests == []


def test_a_folder_may_be_relative_and_look_like_a_home(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert download(server.url(), Path("~"), "a.txt", sha256=None) == Path("~/a.txt")
    assert names(tmp_path) == ["~"]
    assert (tmp_path / "~" / "a.txt").read_bytes() == TEXT


def test_a_server_need_not_say_the_length(server: Server, tmp_path: Path) -> None:
    server.says_length = False
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT


def test_the_bar_is_drawn_on_standard_error_and_begins_where_the_part_ends(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    break_off(server, tmp_path, 150_000)
    download(server.url(), tmp_path, "a.txt", sha256=None, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.lstrip("\r").startswith("a.txt:  50%")
    assert "300k/300k" in err


@pytest.mark.parametrize("file", ["", ".", "..", "../a.txt", "/tmp/a.txt", "b/a.txt"])
def test_a_file_lies_in_the_folder_and_nowhere_else(tmp_path: Path, file: str) -> None:
    message = error("http://127.0.0.1:1/", tmp_path / "folder", file)
    assert message.endswith("not the name of a file in a folder")
    assert names(tmp_path) == []


def test_importing_the_module_is_light() -> None:
    code = "import sys, charlm.data.download; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {"pooch", "requests", "tqdm", "torch"} & set(result.stdout.decode().split())


# --- going on --------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 100_000, len(TEXT) - 1])
@pytest.mark.parametrize("sha256", [None, sha(TEXT)])
def test_what_is_broken_off_goes_on_where_it_ended(
    server: Server, tmp_path: Path, after: int, sha256: str | None
) -> None:
    server.breaks_after = after
    message = error(server.url(), tmp_path, "a.txt", sha256=sha256)
    assert message == (
        f"a.txt: cannot download {server.url()}: broken off after {after:,} of 300,000 bytes; run "
        "the same command again to go on; without a network, put the file at "
        f"{tmp_path / 'a.txt'} by hand"
    )
    assert names(tmp_path) == ["a.txt.part", "a.txt.part.json"]
    assert (tmp_path / "a.txt.part").read_bytes() == TEXT[:after]

    server.breaks_after = None
    assert download(server.url(), tmp_path, "a.txt", sha256=sha256).read_bytes() == TEXT
    assert server.requests[1]["range"] == f"bytes={after}-"
    assert server.requests[1]["if-range"] == '"one"'
    assert server.sent == len(TEXT)
    assert names(tmp_path) == ["a.txt"]


def test_it_goes_on_as_often_as_it_is_broken_off(server: Server, tmp_path: Path) -> None:
    for received in (100_000, 200_000):
        server.breaks_after = 100_000
        message = error(server.url(), tmp_path, "a.txt")
        assert f"after {received:,} of 300,000" in message
    assert download(server.url(), tmp_path, "a.txt", sha256=sha(TEXT)).read_bytes() == TEXT
    assert server.sent == len(TEXT)


def test_a_server_that_cannot_be_reached_or_fails_in_between_costs_nothing(
    server: Server, tmp_path: Path
) -> None:
    break_off(server, tmp_path)
    server.status = 503
    assert "HTTP 503 Service Unavailable" in error(server.url(), tmp_path, "a.txt")
    server.status = 200
    download(server.url(), tmp_path, "a.txt", sha256=sha(TEXT))
    assert server.sent == len(TEXT) * 2  # one of them with the 503
    assert server.requests[2]["range"] == "bytes=100000-"


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changed_between_is_fetched_anew(
    server: Server, tmp_path: Path, if_range: bool
) -> None:
    break_off(server, tmp_path)
    server.content, server.etag, server.if_range = OTHER, '"two"', if_range
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == OTHER
    assert names(tmp_path) == ["a.txt"]


def test_another_url_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    break_off(server, tmp_path)
    server.content = OTHER
    assert download(server.url("b"), tmp_path, "a.txt", sha256=None).read_bytes() == OTHER
    assert "range" not in server.requests[1]


def test_a_server_that_knows_no_ranges_sends_the_file_anew(server: Server, tmp_path: Path) -> None:
    break_off(server, tmp_path)
    server.ranges = False
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    assert server.sent == 400_000


def test_a_range_that_was_not_asked_for_is_not_taken(server: Server, tmp_path: Path) -> None:
    break_off(server, tmp_path)
    server.first_range_shift = 1
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT


def test_a_range_that_ends_early_is_broken_off(server: Server, tmp_path: Path) -> None:
    break_off(server, tmp_path)
    server.says_length, server.breaks_after = False, 50_000
    assert "after 150,000 of 300,000 bytes" in error(server.url(), tmp_path, "a.txt")


@pytest.mark.parametrize(
    ("etag", "modified", "sign"),
    [
        (None, "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ('"strong"', "Mon, 01 Jan 2024 00:00:00 GMT", '"strong"'),
        ('W/"weak"', None, None),
        (None, None, None),
    ],
)
def test_it_goes_on_only_when_a_change_would_be_noticed(
    server: Server, tmp_path: Path, etag: str | None, modified: str | None, sign: str | None
) -> None:
    server.etag, server.modified = etag, modified
    break_off(server, tmp_path)
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    assert server.requests[1].get("if-range") == sign
    assert ("range" in server.requests[1]) == (sign is not None)


def leave_part(server: Server, folder: Path, content: bytes) -> None:
    (folder / "a.txt.part").write_bytes(content)
    note = {"url": server.url(), "validator": server.etag}
    (folder / "a.txt.part.json").write_text(json.dumps(note))


def test_a_part_that_is_already_whole_is_taken(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path, TEXT)
    assert download(server.url(), tmp_path, "a.txt", sha256=sha(TEXT)).read_bytes() == TEXT
    assert server.sent == 0  # the answer was 416
    assert names(tmp_path) == ["a.txt"]


def test_a_part_longer_than_the_file_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path, OTHER + b"and more")
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    assert len(server.requests) == 2


@pytest.mark.parametrize("note", [None, "", "{", "[]", "{}", '{"url": 1, "validator": 2}', "\xff"])
def test_a_part_of_an_unknown_file_is_fetched_anew(
    server: Server, tmp_path: Path, note: str | None
) -> None:
    (tmp_path / "a.txt.part").write_bytes(OTHER[:1000])
    if note is not None:
        (tmp_path / "a.txt.part.json").write_text(note, encoding="latin-1")
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    assert names(tmp_path) == ["a.txt"]


def test_a_note_without_its_part_does_no_harm(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path, b"")
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    leave_part(server, tmp_path, b"")
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt.part").unlink()
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    assert all("range" not in request for request in server.requests)


# --- what goes wrong -------------------------------------------------------------------------


def test_a_wrong_checksum_names_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    message = error(server.url(), tmp_path, "a.txt", sha256=sha(OTHER))
    assert message.startswith(f"a.txt: {server.url()}: ")
    assert sha(TEXT) in message
    assert sha(OTHER) in message
    assert names(tmp_path) == []
    download(server.url(), tmp_path, "a.txt", sha256=sha(TEXT))
    assert "range" not in server.requests[1]


def test_a_part_with_wrong_bytes_is_found_out_and_removed(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path, OTHER[:1000])
    assert sha(OTHER[:1000] + TEXT[1000:]) in error(
        server.url(), tmp_path, "a.txt", sha256=sha(TEXT)
    )
    assert names(tmp_path) == []


def test_without_a_connection_the_message_says_where_to_put_the_file(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
        assert error(url, tmp_path, "a.txt") == (
            f"a.txt: cannot download {url}: no connection; without a network, put the file at "
            f"{tmp_path / 'a.txt'} by hand"
        )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "HTTP 404 Not Found;"),
        (500, "HTTP 500 Internal Server Error;"),
        (206, "HTTP 206 Partial Content;"),
        (204, "HTTP 204 No Content;"),
        (599, "HTTP 599;"),
    ],
)
def test_an_http_error_is_named(server: Server, tmp_path: Path, status: int, reason: str) -> None:
    server.status = status
    assert f"cannot download {server.url()}: {reason}" in error(server.url(), tmp_path, "a.txt")
    assert names(tmp_path) == []


def test_a_server_that_says_nothing_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        assert ": timed out;" in error(url, tmp_path, "a.txt")


def test_a_server_that_stops_in_the_middle_is_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.go_on.clear()
    with monkeypatch.context() as patch:
        patch.setattr(module, "TIMEOUT_S", (10.0, 0.5))
        assert "broken off after 0 of 300,000 bytes" in error(server.url(), tmp_path, "a.txt")
    server.go_on.set()
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT


@pytest.mark.parametrize("url", ["file:///etc/passwd", "nothing", "http://", "ftp://127.0.0.1/a"])
def test_only_http_is_spoken(tmp_path: Path, url: str) -> None:
    assert f"a.txt: cannot download {url}: " in error(url, tmp_path, "a.txt")
    assert names(tmp_path) == []


def test_a_folder_that_is_a_file_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    message = error(server.url(), tmp_path / "folder", "a.txt")
    assert message == f"a.txt: cannot write in {tmp_path / 'folder'}: File exists"


def test_a_name_too_long_is_said(server: Server, tmp_path: Path) -> None:
    assert error(server.url(), tmp_path, "a" * 300).endswith("File name too long")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
def test_a_full_disk_is_said_and_when_there_is_room_it_goes_on(
    server: Server, tmp_path: Path
) -> None:
    code = f"""if True:
        import resource
        from pathlib import Path
        from charlm.data.download import download
        from charlm.errors import DataError
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            download({server.url()!r}, Path({str(tmp_path)!r}), "a.txt", sha256=None)
        except DataError as error:
            print(error)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.decode() == f"a.txt: cannot write in {tmp_path}: File too large\n"
    assert names(tmp_path) == ["a.txt.part", "a.txt.part.json"]
    path = download(server.url(), tmp_path, "a.txt", sha256=sha(TEXT))
    assert path.read_bytes() == TEXT
    assert server.requests[1]["range"] == "bytes=200000-"


def test_a_disk_that_is_full_in_unpacking_keeps_the_archive_for_the_next_time(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Any, target: Any) -> None:
        target.write(source.read(1000))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.content = gzip.compress(TEXT)
    arguments: dict[str, Any] = {"folder": tmp_path, "file": "a.txt", "sha256": sha(server.content)}
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        message = error(server.url("a.gz"), **arguments)
    assert message == f"a.txt: cannot write in {tmp_path}: No space left on device"
    assert names(tmp_path) == ["a.txt.tmp"]
    assert names(tmp_path / "a.txt.tmp") == ["archive"]

    assert download(server.url("a.gz"), **arguments).read_bytes() == TEXT
    assert len(server.requests) == 1
    assert names(tmp_path) == ["a.txt"]


# --- unpacking -------------------------------------------------------------------------------


def zipped(**members: bytes) -> bytes:
    """A zip archive; `__` in a name stands for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def tarred(mode: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVES = {
    "a.gz": gzip.compress(TEXT),
    "a.TXT.GZ": gzip.compress(TEXT),
    "a.bz2": bz2.compress(TEXT),
    "a.xz": lzma.compress(TEXT),
    "a.zip": zipped(a=TEXT),
    "a.zip?raw=1#top": zipped(**{"d__": b"", "d__a.txt": TEXT}),
    "a.tar": tarred("", {"a": TEXT}),
    "a.tar.gz": tarred("gz", {"a": TEXT}),
    "a.tgz": tarred("gz", {"d/a": TEXT}),
    "a.tar.bz2": tarred("bz2", {"a": TEXT}),
    "a.tar.xz": tarred("xz", {"a": TEXT}),
}


@pytest.mark.parametrize("path", ARCHIVES)
def test_an_archive_of_one_file_is_unpacked_and_removed(
    server: Server, tmp_path: Path, path: str
) -> None:
    server.content = ARCHIVES[path]
    digest = sha(server.content)  # of the archive, not of what is in it
    assert download(server.url(path), tmp_path, "a", sha256=digest).read_bytes() == TEXT
    assert names(tmp_path) == ["a"]


def test_an_archive_goes_on_too(server: Server, tmp_path: Path) -> None:
    server.content, server.breaks_after = ARCHIVES["a.zip"], 100_000
    error(server.url("a.zip"), tmp_path, "a.txt")
    server.breaks_after = None
    assert download(server.url("a.zip"), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    assert server.sent == len(server.content)


TREE = {"p/b.tex": b"B", "p/a.tex": b"A\n", "p/c.txt": b"C", "p/q/d.tex": b"D", "e.tex": b"E"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("p/c.txt", b"C"),
        ("*/*.tex", b"A\n\nB"),
        ("p/*", b"A\n\nB\nC"),
        ("*.tex", b"E"),
        ("*/*/?.tex", b"D"),
    ],
)
def test_the_members_that_are_asked_for_are_joined_in_the_order_of_their_names(
    server: Server, tmp_path: Path, kind: str, member: str, expected: bytes
) -> None:
    tree = {name.replace("/", "__"): content for name, content in TREE.items()}
    server.content = zipped(**tree) if kind == "zip" else tarred("gz", TREE)
    path = download(server.url(f"a.{kind}"), tmp_path, "a", sha256=None, member=member)
    assert path.read_bytes() == expected


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("member", "wanted"), [(None, "one file alone"), ("f.tex", "'f.tex'"), ("*/", "'*/'")]
)
def test_a_member_that_is_not_there_is_named_with_some_that_are(
    server: Server, tmp_path: Path, kind: str, member: str | None, wanted: str
) -> None:
    tree = {f"d/{number}\n": b"" for number in range(6)}
    server.content = (
        zipped(**{name.replace("/", "__"): b"" for name in tree})
        if kind == "zip"
        else tarred("gz", tree)
    )
    message = error(server.url(f"a.{kind}"), tmp_path, "a", member=member)
    shown = ", ".join(rf"'d/{number}\n'" for number in range(5))
    assert message.endswith(f": it does not hold {wanted}, but {shown}, ...")
    assert names(tmp_path) == []


def test_an_empty_archive_holds_nothing(server: Server, tmp_path: Path) -> None:
    server.content = zipped()
    assert error(server.url("a.zip"), tmp_path, "a").endswith("one file alone, but nothing")


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/charlm-evil.txt", "d/../../evil.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_member_whose_name_leads_elsewhere_writes_nothing_there(
    server: Server, tmp_path: Path, kind: str, name: str
) -> None:
    folder = tmp_path / "folder"
    server.content = (
        zipped(**{name.replace("/", "__"): TEXT}) if kind == "zip" else tarred("gz", {name: TEXT})
    )
    path = download(server.url(f"a.{kind}"), folder, "a.txt", sha256=None)
    assert path.read_bytes() == TEXT
    assert names(folder) == ["a.txt"]
    assert names(tmp_path) == ["folder"]
    assert not Path("/tmp/charlm-evil.txt").exists()


def test_links_and_devices_in_a_tar_are_passed_over(server: Server, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("dev", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("./a.txt")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"text"))
    server.content = buffer.getvalue()
    assert download(server.url("a.tgz"), tmp_path, "a", sha256=None, member="*").read_text() == (
        "text"
    )


@pytest.mark.parametrize("path", ARCHIVES)
@pytest.mark.parametrize("damage", ["cut", "not one"])
def test_a_damaged_archive_is_said_and_removed(
    server: Server, tmp_path: Path, path: str, damage: str
) -> None:
    server.content = ARCHIVES[path][:200_000] if damage == "cut" else b"<html>no such file\n</html>"
    message = error(server.url(path), tmp_path, "a", sha256=sha(server.content))
    assert message.startswith(f"a: cannot unpack {server.url(path)}: ")
    assert names(tmp_path) == []


def test_a_zip_with_a_password_is_said(server: Server, tmp_path: Path) -> None:
    content = bytearray(zipped(a=b"text"))
    content[6] |= 1  # the flag of encryption, in the member's header and in the directory
    content[content.index(b"PK\1\2") + 8] |= 1
    server.content = bytes(content)
    assert "password required" in error(server.url("a.zip"), tmp_path, "a")


# --- several at once, and ended in the middle ----------------------------------------------------


def test_several_threads_fetch_a_file_once(server: Server, tmp_path: Path) -> None:
    server.content = ARCHIVES["a.zip"]
    server.go_on.clear()
    threading.Timer(0.2, server.go_on.set).start()
    with ThreadPoolExecutor(8) as pool:
        calls = [
            pool.submit(download, server.url("a.zip"), tmp_path, "a.txt", sha256=None)
            for _ in range(8)
        ]
        assert {call.result().read_bytes() for call in calls} == {TEXT}
    assert len(server.requests) == 1
    assert names(tmp_path) == ["a.txt"]


def start(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    """A process that downloads."""
    code = (
        "import sys; from pathlib import Path; from charlm.data.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]), 'a.txt', sha256=sys.argv[3])"
    )
    arguments = [server.url(), str(folder), sha(TEXT)]
    return subprocess.Popen([sys.executable, "-c", code, *arguments])


def test_several_processes_fetch_a_file_once(server: Server, tmp_path: Path) -> None:
    server.go_on.clear()
    processes = [start(server, tmp_path) for _ in range(3)]
    threading.Timer(1.0, server.go_on.set).start()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "a.txt").read_bytes() == TEXT
    assert len(server.requests) == 1
    assert names(tmp_path) == ["a.txt"]


def test_after_a_process_is_killed_the_next_one_goes_on_and_clears_up(
    server: Server, tmp_path: Path
) -> None:
    server.go_on.clear()
    process = start(server, tmp_path)
    while not (tmp_path / "a.txt.part").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.go_on.set()
    assert names(tmp_path) == ["a.txt.part", "a.txt.part.json", "a.txt.tmp"]
    (tmp_path / "a.txt.part").write_bytes(TEXT[:1000])  # as if it had been later
    assert download(server.url(), tmp_path, "a.txt", sha256=sha(TEXT)).read_bytes() == TEXT
    assert server.requests[1]["range"] == "bytes=1000-"
    assert names(tmp_path) == ["a.txt"]
