"""Fetching a text from the network: resumable, verified, unpacked, and there only when whole."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tarfile
import zipfile
from contextlib import suppress
from fnmatch import fnmatchcase
from http.client import responses as http_phrases
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from charlm.errors import DataError
from charlm.files import locked
from charlm.version import __version__

if TYPE_CHECKING:
    from requests import Response

TIMEOUT_S = (10.0, 30.0)  # to connect, and between two pieces of a file
_ARCHIVES = (".zip", ".tgz", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")
_COMPRESSED = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".xz": "xz"}  # as pooch calls it
_REASONS = {  # of requests' exceptions
    "ConnectionError": "no connection",
    "ConnectTimeout": "timed out",
    "ProxyError": "no connection to the proxy",
    "ReadTimeout": "timed out",
    "SSLError": "no secure connection",
}


def download(
    url: str,
    folder: Path,
    file: str,
    *,
    sha256: str | None,
    member: str | None = None,
    progress: bool = False,
) -> Path:
    """Fetch `url` into `folder / file`, unpacked, and return it; if it is there, just return it.

    What is broken off stays as `<file>.part`, and the next call goes on from there. A URL that
    ends in .gz, .bz2 or .xz is decompressed. Of one that ends in .zip, .tar.gz, .tgz and the like
    the files that `member` names are taken, a name or a glob whose `*` stops at a slash: sorted
    by name, with a newline between two; without `member` the archive must hold but one file.

    `sha256` is of the file as the server has it, before unpacking; None if it is not known, and
    then only the length is checked. `progress` draws a bar on standard error.

    Raises:
        DataError: in one line, what the network, the disk, the checksum or the archive forbade.
    """
    job = _Job(url, folder, file, member, progress)
    if not file.strip(".") or Path(file).name != file:
        raise job.error("not the name of a file in a folder")
    try:
        if not job.target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder, wait=True):  # one download at a time
                if not job.target.is_file():  # nor has the one we waited for put it there
                    _retrieve(job, sha256)
    except OSError as error:
        raise job.error(f"cannot write in {folder}: {error.strerror or error}") from error
    return job.target


class _Job:
    """What to fetch, and where it lies in the meantime."""

    def __init__(self, url: str, folder: Path, file: str, member: str | None, bar: bool) -> None:
        self.url, self.file, self.member, self.bar = url, file, member, bar
        self.path = urlsplit(url).path.lower()  # whose suffix says how to unpack
        self.target = folder / file
        self.part = folder / f"{file}.part"  # the bytes received so far
        self.note = folder / f"{file}.part.json"  # of which file they are
        self.work = folder / f"{file}.tmp"  # pooch's: the whole archive, and what is unpacked

    def error(self, reason: str) -> DataError:
        return DataError(" ".join(f"{self.file}: {reason}".split()))  # one line

    def failure(self, reason: object) -> DataError:
        by_hand = f"without a network, put the file at {self.target} by hand"
        return self.error(f"cannot download {self.url}: {reason}; {by_hand}")


def _retrieve(job: _Job, sha256: str | None) -> None:
    """Put the file in its place. If the disk is full, a verified archive stays in `job.work`."""
    import pooch  # type: ignore[import-untyped]

    pooch.get_logger().setLevel(logging.WARNING)  # it tells standard error of every step
    if sha256 is None:  # whether an archive left behind is still the right one cannot be told
        shutil.rmtree(job.work, ignore_errors=True)
    try:
        whole = pooch.retrieve(
            job.url,
            known_hash=sha256,
            fname="archive",
            path=job.work.absolute(),
            downloader=lambda _url, output, _pooch: _fetch(job, Path(output)),
            processor=lambda archive, _action, _pooch: _unpack(job, Path(archive)),
        )
        with Path(whole).open("rb+") as file:
            os.fsync(file.fileno())
        Path(whole).replace(job.target)
        shutil.rmtree(job.work, ignore_errors=True)
    except ValueError as error:  # pooch's word for a wrong checksum; it has removed the file
        raise job.error(f"{job.url}: {error}") from error
    finally:
        with suppress(OSError):  # there is an archive in it
            job.work.rmdir()


def _fetch(job: _Job, output: Path) -> None:
    """Bring the file to `output`; if the network fails, what has come stays in `job.part`."""
    while not _transfer(job):
        job.part.unlink()
    job.part.replace(output)
    job.note.unlink(missing_ok=True)


def _transfer(job: _Job) -> bool:
    """Fill `job.part`; False if what was in it does not go with what the server has now."""
    import requests

    start, validator = _received(job)
    headers = {"User-Agent": f"charlm/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        response = requests.get(job.url, headers=headers, stream=True, timeout=TIMEOUT_S)
    except requests.RequestException as error:
        raise job.failure(_REASONS.get(type(error).__name__, error)) from error
    with response:
        status, total = response.status_code, _length(response)
        if start and status == 416:
            return total == start
        if start and status == 206:
            goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if not goes_on or _validator(response) not in ("", validator):
                return False
        elif status != 200:
            raise job.failure(f"HTTP {status} {http_phrases.get(status, '')}".strip())
        else:
            start = 0
            job.part.unlink(missing_ok=True)  # first: the note must never be of other bytes
            note = {"url": job.url, "validator": _validator(response)}
            job.note.write_text(json.dumps(note), encoding="utf-8")
        _receive(job, response, start, total)
    return True


def _received(job: _Job) -> tuple[int, str]:
    """How many bytes an earlier call left, and the sign of the file they are of; 0 if none."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        note = json.loads(job.note.read_text("utf-8"))
        if note["url"] == job.url and note["validator"]:
            return job.part.stat().st_size, str(note["validator"])
    return 0, ""


def _validator(response: Response) -> str:
    """What If-Range takes as the sign of a file: a strong ETag, else a date; empty if none."""
    etag: str = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _length(response: Response) -> int | None:
    """How many bytes the whole file has, if that is said."""
    of = response.headers.get("Content-Range", "").rpartition("/")[2]
    length = of or response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _receive(job: _Job, response: Response, start: int, total: int | None) -> None:
    """Append the bytes of an answer to the `start` bytes in `job.part`."""
    from tqdm import tqdm
    from urllib3.exceptions import HTTPError

    cause, hidden = None, not job.bar
    bar = tqdm(desc=job.file, total=total, initial=start, unit="B", unit_scale=True, disable=hidden)
    with job.part.open("ab") as part, bar:
        try:
            for chunk in response.raw.stream(1 << 16, decode_content=False):
                bar.update(part.write(chunk))
        except HTTPError as error:
            cause = error
    size = job.part.stat().st_size
    if cause or total not in (None, size):
        sizes = f"{size:,} bytes" if total is None else f"{size:,} of {total:,} bytes"
        reason = f"broken off after {sizes}; run the same command again to go on"
        raise job.failure(reason) from cause


def _unpack(job: _Job, archive: Path) -> str:
    """The path of what is in `archive`, by the suffix of the URL. A damaged one is removed."""
    import pooch

    plain, members = archive.with_name("plain"), archive.with_name("members")
    source = archive
    try:
        if method := _COMPRESSED.get(PurePosixPath(job.path).suffix):
            source = Path(pooch.Decompress(method, plain.name)(str(archive), "download", None))
        if job.path.endswith(_ARCHIVES):
            source = _take_members(job, source, members)
    except Exception as error:  # a stranger's archive can raise nearly anything
        plain.unlink(missing_ok=True)
        members.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise  # it is the disk
        archive.unlink()
        why = str(error) or type(error).__name__
        raise job.error(f"cannot unpack {job.url}: {why}") from error
    return str(source)


def _take_members(job: _Job, archive: Path, output: Path) -> Path:
    """Write what `job.member` means to `output`.

    Not by pooch's Unzip and Untar: those write each member under the name that the archive gives
    it, and before Python 3.12 Untar lets that name lead out of the folder.
    """
    zipped = job.path.endswith(".zip")
    open_archive: Any = zipfile.ZipFile if zipped else tarfile.open
    with open_archive(archive) as source, output.open("wb") as joined:
        if zipped:
            names = [info.filename for info in source.infolist() if not info.is_dir()]
        else:
            names = [info.name for info in source if info.isfile()]
        for number, name in enumerate(_chosen(names, job.member)):
            joined.write(b"\n" * bool(number))
            with source.open(name) if zipped else source.extractfile(name) as text:
                shutil.copyfileobj(text, joined)
    return output


def _chosen(names: list[str], member: str | None) -> list[str]:
    """The names that `member` means, sorted; without it the only one."""
    chosen = sorted({name for name in names if member is None or _is(name, member)})
    if not chosen or (member is None and len(chosen) > 1):
        wanted = "one file alone" if member is None else repr(member)
        some = ", ".join(map(repr, sorted(names)[:5])) + ", ..." * (len(names) > 5)
        raise LookupError(f"it does not hold {wanted}, but {some or 'nothing'}")
    return chosen


def _is(name: str, pattern: str) -> bool:
    """Whether a glob means a name, part by part, so that `*` stops at a slash."""
    parts, globs = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return name == pattern or (len(parts) == len(globs) and all(map(fnmatchcase, parts, globs)))
