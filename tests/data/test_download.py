"""Downloading a text from a server on this machine, which can be made to fail."""

from __future__ import annotations

import bz2
import gc
import gzip
import hashlib
import io
import lzma
import random
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from charlm.data import download as module
from charlm.data.download import RETRIES, download
from charlm.errors import DataError

TEXT = random.Random(0).randbytes(300_000)  # several chunks, and no part occurs twice
SHA = hashlib.sha256(TEXT).hexdigest()
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # see the fixture `server`


class Server(ThreadingHTTPServer):
    """Serves the same content under every path."""

    daemon_threads = False  # closing waits for the threads, so no socket stays open

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status = TEXT, 200
        self.failures = 0  # the number of answers to break off
        self.go_on = threading.Event()  # before it is set, only headers are sent
        self.go_on.set()
        self.requests: list[dict[str, str]] = []  # the headers of each

    def url(self, path: str = "text.txt") -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may close the connection."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers.items()))
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        server.go_on.wait(60)
        server.failures -= 1
        self.wfile.write(server.content[:100_000] if server.failures >= 0 else server.content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _seconds: None))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()
    gc.collect()  # closes the sockets that pooch leaves open


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def error(*arguments: Any, sha256: str | None = None, **options: Any) -> str:
    """The message of a download that fails. It must be one line."""
    with pytest.raises(DataError) as caught:
        download(*arguments, sha256=sha256, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("sha256", [None, SHA, SHA.upper()])
@pytest.mark.parametrize("progress", [False, True])
def test_a_file_is_downloaded_and_nothing_else_is_left(
    server: Server, tmp_path: Path, capfd: Any, sha256: str | None, progress: bool
) -> None:
    folder = tmp_path / "new" / "folder"
    path = download(server.url(), folder, "a.txt", sha256=sha256, progress=progress)
    assert (path, path.read_bytes()) == (folder / "a.txt", TEXT)
    assert names(folder) == ["a.txt"]
    assert server.requests[0]["Accept-Encoding"] == "identity"
    out, err = capfd.readouterr()
    assert out == ""
    assert "300k/300k" in err if progress else err == ""


def test_a_file_that_exists_is_returned_as_it_is(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    assert download(server.url(), tmp_path, "a.txt", sha256=SHA).read_text() == "mine"
    assert server.requests == []


def test_a_folder_may_be_relative_and_begin_with_a_tilde(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert download(server.url(), Path("~"), "a.txt", sha256=None).read_bytes() == TEXT
    assert names(tmp_path) == ["~"]


@pytest.mark.parametrize("file", ["", ".", "..", "../a.txt", "/tmp/a.txt", "b/a.txt"])
def test_a_file_is_in_the_folder_and_nowhere_else(tmp_path: Path, file: str) -> None:
    message = error("http://127.0.0.1:1/", tmp_path / "folder", file)
    assert message.endswith("not the name of a file in a folder")
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "nothing", "http://", "ftp://127.0.0.1/a"])
def test_only_http_urls_are_downloaded(server: Server, tmp_path: Path, url: str) -> None:
    assert f"a.txt: cannot download {url}: " in error(url, tmp_path, "a.txt")
    assert names(tmp_path) == []


def test_importing_the_module_is_light() -> None:
    code = "import sys, charlm.data.download; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert not {"pooch", "requests", "tqdm", "torch"} & set(result.stdout.decode().split())


# --- the network and the disk ----------------------------------------------------------------


def test_a_lost_connection_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.failures = RETRIES
    assert download(server.url(), tmp_path, "a.txt", sha256=None).read_bytes() == TEXT
    server.failures = RETRIES + 1
    assert error(server.url(), tmp_path, "b.txt") == (
        f"b.txt: cannot download {server.url()}: the connection was lost; without a network, put "
        f"the file at {tmp_path / 'b.txt'} by hand"
    )
    assert names(tmp_path) == ["a.txt"]


def test_a_wrong_checksum_names_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.content = gzip.compress(TEXT)  # SHA is of the text, not of the compressed file
    message = error(server.url("a.gz"), tmp_path, "a.txt", sha256=SHA)
    assert message.startswith(f"a.txt: {server.url('a.gz')}: ")
    assert SHA in message
    assert hashlib.sha256(server.content).hexdigest() in message
    assert names(tmp_path) == []


def test_no_connection_and_time_outs_are_reported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", (0.2, 0.2))
    server.go_on.clear()
    message = error(server.url(), tmp_path, "a.txt")
    assert f"{server.url()}: timed out; without a network, put" in message
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        assert f"{url}: no connection; without a network, put" in error(url, tmp_path, "a.txt")
        silent.listen()
        assert f"{url}: timed out; without a network, put" in error(url, tmp_path, "a.txt")
    assert names(tmp_path) == []


@pytest.mark.parametrize("reason", ["404 Not Found", "500 Internal Server Error", "599"])
def test_an_http_error_is_reported(server: Server, tmp_path: Path, reason: str) -> None:
    server.status = int(reason[:3])
    assert f"{server.url()}: HTTP {reason}; without" in error(server.url(), tmp_path, "a.txt")
    assert names(tmp_path) == []


def test_a_folder_and_a_name_that_cannot_be_written_are_reported(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    message = error("http://127.0.0.1:1/", tmp_path / "folder", "a.txt")
    assert message == f"a.txt: cannot write in {tmp_path / 'folder'}: File exists"
    assert error("http://127.0.0.1:1/", tmp_path, "a" * 300).endswith("File name too long")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("path", ["a.txt", "a.gz"])
def test_a_full_disk_is_reported_and_leaves_nothing(
    server: Server, tmp_path: Path, path: str
) -> None:
    code = f"""if True:
        import resource
        from pathlib import Path
        from charlm.data.download import download
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        download({server.url(path)!r}, Path({str(tmp_path)!r}), "a.txt", sha256=None)
    """
    server.content = gzip.compress(bytes(300_000)) if path == "a.gz" else TEXT
    result = subprocess.run([sys.executable, "-c", code], capture_output=True)
    message = f"DataError: a.txt: cannot write in {tmp_path}: File too large\n"
    assert result.stderr.decode().endswith(message)
    assert names(tmp_path) == []


# --- unpacking -------------------------------------------------------------------------------


def archive(kind: str, members: dict[str, bytes], links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in members.items():
                zipped.writestr(name, content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
        for name in (*members, *links):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.REGTYPE, "/etc/passwd"
            if name in links:
                info.type = tarfile.CHRTYPE if name == "device" else tarfile.SYMTYPE
            info.size = len(members.get(name, b""))
            tar.addfile(info, io.BytesIO(members.get(name, b"")))
    return buffer.getvalue()


ARCHIVES = {
    "a.gz": gzip.compress(TEXT),
    "a.TXT.GZ": gzip.compress(TEXT),
    "a.bz2": bz2.compress(TEXT),
    "a.xz": lzma.compress(TEXT),
    "a.zip": archive("zip", {"../a": TEXT}),
    "a.zip?raw=1#top": archive("zip", {"d/": b"", "d/a.txt": TEXT}),
    "a.tar": archive("", {"a": TEXT}),
    "a.tar.gz": archive("gz", {"./a": TEXT}, links=("link", "device")),
    "a.tgz": archive("gz", {"d/a": TEXT}),
    "a.tar.bz2": archive("bz2", {"d/../../a": TEXT}),
    "a.tar.xz": archive("xz", {"/tmp/charlm-evil.txt": TEXT}),
}


@pytest.mark.parametrize("path", ARCHIVES)
def test_the_one_file_of_an_archive_is_unpacked_whatever_its_name(
    server: Server, tmp_path: Path, path: str
) -> None:
    server.content = ARCHIVES[path]
    digest, folder = hashlib.sha256(server.content).hexdigest(), tmp_path / "folder"
    assert download(server.url(path), folder, "text", sha256=digest).read_bytes() == TEXT
    assert (names(tmp_path), names(folder)) == (["folder"], ["text"])
    assert not Path("/tmp/charlm-evil.txt").exists()


@pytest.mark.parametrize("path", ARCHIVES)
@pytest.mark.parametrize("damage", ["cut", "not one"])
def test_a_damaged_archive_is_reported_and_removed(
    server: Server, tmp_path: Path, path: str, damage: str
) -> None:
    server.content = ARCHIVES[path][:200_000] if damage == "cut" else b"<html>no such file\n</html>"
    message = error(server.url(path), tmp_path, "a")
    assert message.startswith(f"a: cannot unpack {server.url(path)}: ")
    assert names(tmp_path) == []


TREE = {"p/b.tex": b"B", "p/a.tex": b"A\n", "p/c.txt": b"C", "p/q/d.tex": b"D", "[e].tex": b"E"}
MEMBERS: dict[str | None, bytes] = {
    **{"p/c.txt": b"C", "[e].tex": b"E", "*.tex": b"E", "*/*/?.tex": b"D"},
    **{"*/*.tex": b"A\n\nB", "p/*": b"A\n\nB\nC"},
}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("member", [*MEMBERS, None, "c.txt", "*/f.tex"])
def test_the_members_are_joined_in_the_order_of_their_names(
    server: Server, tmp_path: Path, kind: str, member: str | None
) -> None:
    server.content = archive(kind.removeprefix("tar."), TREE)
    if member in MEMBERS:
        path = download(server.url(f"a.{kind}"), tmp_path, "a", sha256=None, member=member)
        assert path.read_bytes() == MEMBERS[member]
    else:
        message = error(server.url(f"a.{kind}"), tmp_path, "a", member=member)
        assert message.endswith(f": it does not contain {member or 'exactly one file'}")


# --- several at once, and a killed process ---------------------------------------------------


def start(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    """A process that downloads."""
    code = (
        "import sys; from pathlib import Path; from charlm.data.download import download; "
        "download(sys.argv[1], Path(sys.argv[2]), 'a.txt', sha256=sys.argv[3])"
    )
    return subprocess.Popen([sys.executable, "-c", code, server.url(), str(folder), SHA])


def test_several_processes_download_a_file_once(server: Server, tmp_path: Path) -> None:
    server.go_on.clear()
    processes = [start(server, tmp_path) for _ in range(3)]
    threading.Timer(1.0, server.go_on.set).start()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "a.txt").read_bytes() == TEXT
    assert len(server.requests) == 1
    assert names(tmp_path) == ["a.txt"]


def test_a_killed_process_leaves_no_half_file_and_the_next_one_cleans_up(
    server: Server, tmp_path: Path
) -> None:
    server.go_on.clear()
    process = start(server, tmp_path)
    while not server.requests:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.go_on.set()
    assert names(tmp_path) == ["a.txt.tmp"]
    assert download(server.url(), tmp_path, "a.txt", sha256=SHA).read_bytes() == TEXT
    assert names(tmp_path) == ["a.txt"]
