"""Downloads a text, checks it, unpacks it, and puts it in place only when it is complete."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from charlm.errors import DataError
from charlm.files import flush, locked
from charlm.version import __version__

RETRIES = 2
TIMEOUT_S = (10.0, 30.0)  # to connect, and between two chunks of a file
_OPENERS: dict[str, Callable[..., Any]] = {  # by what a URL ends in
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".tar": open,
    ".zip": open,
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
    """Download `url` to `folder / file` and return that path. An existing file stays as it is.

    Args:
        url: An http or https URL. Its suffix says how to unpack: .gz, .bz2 and .xz files are
            decompressed, files are taken out of .zip, .tar and compressed .tar archives.
        folder: Is created if it does not exist.
        file: The name of the file in `folder`.
        sha256: The checksum of what the server has, before unpacking, or None if unknown.
        member: The files to take out of an archive: a name, or a glob whose `*` stops at a slash.
            They are sorted by name and joined with a newline. None takes the only file.
        progress: Show a progress bar on standard error.

    Raises:
        DataError: The network, the disk, the checksum or the archive failed.
    """
    target = folder / file
    if not file.strip(".") or Path(file).name != file:
        raise _error(file, "not the name of a file in a folder")
    if not url.startswith(("http://", "https://")):
        raise _error(file, f"cannot download {url}: not an http or https URL")
    try:
        if not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder, wait=True):  # one download at a time
                if not target.is_file():  # the process that had the lock may have made it
                    _fetch(url, target, sha256, member, progress)
    except OSError as error:
        raise _error(file, f"cannot write in {folder}: {error.strerror or error}") from error
    return target


def _error(file: str, reason: str) -> DataError:
    return DataError(" ".join(f"{file}: {reason}".split()))  # one line


def _fetch(url: str, target: Path, sha256: str | None, member: str | None, progress: bool) -> None:
    import pooch  # type: ignore[import-untyped]

    pooch.get_logger().setLevel(logging.WARNING)  # it logs every download to standard error
    file, work = target.name, target.with_name(f"{target.name}.tmp").absolute()
    headers = {"User-Agent": f"charlm/{__version__}", "Accept-Encoding": "identity"}
    http = pooch.HTTPDownloader(progress, chunk_size=1 << 16, timeout=TIMEOUT_S, headers=headers)
    registry, urls = {file: sha256}, {file: url}
    store = pooch.create(work, "", registry=registry, urls=urls, retry_if_failed=RETRIES)
    shutil.rmtree(work, ignore_errors=True)  # left by a process that was killed
    work.mkdir()
    try:
        raw = Path(store.fetch(file, downloader=http))
        text = _unpack(raw, url, member)
        with text.open("rb+") as content:
            flush(content.fileno())  # a power cut must not leave an empty file in place
        text.replace(target)
    except OSError as error:
        if error.errno is not None:  # from the disk: the exceptions of requests have no errno
            raise
        by_hand = f"without a network, put the file at {target} by hand"
        raise _error(file, f"cannot download {url}: {_reason(error)}; {by_hand}") from error
    except ValueError as error:  # a wrong checksum
        raise _error(file, f"{url}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _reason(error: OSError) -> str:
    if (response := getattr(error, "response", None)) is not None:
        return f"HTTP {response.status_code} {response.reason}".strip()
    if "timed out" in str(error):
        return "timed out"
    lost = {"ConnectionError": "no connection", "ChunkedEncodingError": "the connection was lost"}
    return lost.get(type(error).__name__, str(error))


def _unpack(raw: Path, url: str, member: str | None) -> Path:
    """The path of the text that is in `raw`: `raw` itself, or a new file beside it."""
    path, output = PurePosixPath(urlsplit(url).path.lower()), raw.with_name(f"{raw.name}.text")
    if path.suffix not in _OPENERS:
        return raw
    try:
        with _OPENERS[path.suffix](raw, "rb") as source, output.open("wb") as text:
            for number, part in enumerate(_parts(source, path, member)):
                text.write(b"\n" * bool(number))
                shutil.copyfileobj(part, text)
    except Exception as error:  # a damaged archive can raise almost anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk
        why = str(error) or type(error).__name__
        raise _error(raw.name, f"cannot unpack {url}: {why}") from error
    return output


def _parts(source: IO[bytes], path: PurePosixPath, member: str | None) -> Iterator[IO[bytes]]:
    """The files to join, open for reading. Nothing is written under a name from an archive."""
    if path.suffix == ".zip":
        zipped = zipfile.ZipFile(source)
        infos = [info for info in zipped.infolist() if not info.is_dir()]
        files: dict[str, Any] = {info.filename: partial(zipped.open, info) for info in infos}
    elif ".tar" in path.suffixes[-2:] or path.suffix == ".tgz":
        tar = tarfile.TarFile(fileobj=source)
        files = {info.name: partial(tar.extractfile, info) for info in tar if info.isfile()}
    else:
        yield source
        return
    if member is not None:
        matches = [name for name in files if PurePosixPath("/", name).match(f"/{member}")]
        files = {name: files[name] for name in ([member] if member in files else matches)}
    if not files or (member is None and len(files) > 1):
        raise LookupError(f"it does not contain {member or 'exactly one file'}")
    for _, read in sorted(files.items()):
        with read() as part:
            yield part
