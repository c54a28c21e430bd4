"""Well-known texts that charlm does not ship: what they are and where to download them."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from charlm.errors import DataError
from charlm.files import cache_folder

GITHUB = "https://raw.githubusercontent.com/karpathy"
STANFORD = "https://cs.stanford.edu/people/karpathy/char-rnn"


@dataclass(frozen=True)
class Known:
    """A well-known text.

    Args:
        file: The name of the file on the disk.
        about: A short description.
        url: Where to download it.
        size: The size of the text in bytes, or None if unknown.
        sha256: The checksum of the downloaded file, before unpacking, or None if unknown.
        member: The files to take out of an archive: a name or a glob.
        checked: Where `sha256` comes from: computed from the file, or published by others.
    """

    file: str
    about: str
    url: str
    size: int | None = None
    sha256: str | None = None
    member: str | None = None
    checked: Literal["the file", "as published", "unknown"] = "unknown"


KNOWN = {
    "tinyshakespeare": Known(
        file="tinyshakespeare.txt",
        about="a megabyte of Shakespeare's plays",
        url=f"{GITHUB}/char-rnn/master/data/tinyshakespeare/input.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        checked="the file",
    ),
    "shakespeare": Known(
        file="shakespeare.txt",
        about="all of Shakespeare",
        url=f"{STANFORD}/shakespeare_input.txt",
        sha256="59a0ad62833b2e15ec811c548618876359e902717431236e52699a0e2bc253ca",
        checked="as published",
    ),
    "war-and-peace": Known(
        file="war-and-peace.txt",
        about="Tolstoy's novel, in English",
        url=f"{STANFORD}/warpeace_input.txt",
    ),
    "linux": Known(
        file="linux.txt",
        about="six megabytes of the Linux kernel's C source",
        url=f"{STANFORD}/linux_input.txt",
    ),
    "names": Known(
        file="names.txt",
        about="32,033 first names, one a line (data.documents=lines)",
        url=f"{GITHUB}/makemore/988aa59/names.txt",
        size=228_145,
        sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
        checked="the file",
    ),
    "stacks": Known(
        file="stacks.tex",
        about="the Stacks project's book on algebraic geometry, in LaTeX",
        url="https://github.com/stacks/stacks-project/archive/"
        "aca856f4523fc2b4dca6925cfd7480ccb3e8d0b0.tar.gz",
        member="*/*.tex",
    ),
    "enwik8": Known(
        file="enwik8",
        about="the first 10^8 bytes of the English Wikipedia of 2006, in XML",
        url="http://mattmahoney.net/dc/enwik8.zip",
        size=100_000_000,
        sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        member="enwik8",
        checked="as published",
    ),
    "text8": Known(
        file="text8",
        about="enwik8 in lower-case letters and spaces only",
        url="http://mattmahoney.net/dc/text8.zip",
        size=100_000_000,
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        member="text8",
        checked="as published",
    ),
}


def search_paths(name: str) -> list[Path]:
    """The paths where the known text `name` may be: in $CHARLM_DATA, data/ and charlm's cache."""
    folders = [os.environ.get("CHARLM_DATA"), "data", corpora_folder()]
    return [Path(folder) / KNOWN[name].file for folder in folders if folder]


def corpora_folder() -> Path:
    """The folder where `charlm data fetch` puts texts."""
    return cache_folder() / "corpora"


def have(name: str) -> Path | None:
    """The path of the known text `name`, or None if it is not on this machine."""
    return next((path for path in search_paths(name) if path.is_file()), None)


def similar(name: str) -> str | None:
    """The known text that a name which does not exist may mean; None for other paths and files."""
    for known, text in KNOWN.items():
        if name.lower() in (known, text.file, f"{known}.txt"):
            return known
    if set(name) & set("./\\"):
        return None
    return next(iter(difflib.get_close_matches(name.lower(), KNOWN, 1, cutoff=0.8)), None)


def find(name: str) -> Path:
    """The path of the known text `name`.

    Raises:
        DataError: The text is not on this machine. The message says how to get it.
    """
    if (path := have(name)) is not None:
        return path
    raise DataError(
        f"{name}: this text is not on this machine; get it with: charlm data fetch {name} (or "
        f"download {KNOWN[name].url} and save it as {search_paths(name)[-1]})"
    )
