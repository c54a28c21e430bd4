"""One text as ids, with its vocabulary, its splits and its hash."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from charlm.config import DataConfig
from charlm.data import library
from charlm.data.vocab import Ids, Vocab
from charlm.errors import DataError

Split = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class Corpus:
    """A text of N characters: `ids` (N,), and where the validation and test parts begin.

    `sha256` is of the text in UTF-8.
    """

    source: str
    sha256: str
    vocab: Vocab
    ids: Ids
    val_start: int
    test_start: int

    def __len__(self) -> int:
        return len(self.ids)

    def split(self, split: Split) -> Ids:
        """The ids of one part, a view: train, then val, then test, in the order of the text."""
        start, stop = {
            "train": (0, self.val_start),
            "val": (self.val_start, self.test_start),
            "test": (self.test_start, len(self.ids)),
            "all": (0, len(self.ids)),
        }[split]
        return self.ids[start:stop]


def open_corpus(data: DataConfig, known: Vocab | None = None) -> Corpus:
    """The corpus of `data`; its vocabulary is `known`, if given, and after it what is new.

    Raises:
        DataError: the text is missing, empty or not UTF-8.
    """
    text = read_text(data.path)
    vocab = Vocab.of(text)
    if known is not None:
        vocab = known.extended(vocab)
    n = len(text)
    return Corpus(
        source=data.path,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        vocab=vocab,
        ids=vocab.encode(text),
        val_start=int(n * (1 - data.val_fraction - data.test_fraction)),
        test_start=int(n * (1 - data.test_fraction)),
    )


def read_text(path: str) -> str:
    """The text that `path` names: `builtin:NAME`, a file, or a known corpus. Line ends are kept.

    Raises:
        DataError: it is missing, empty or not UTF-8.
    """
    if path.startswith(library.BUILTIN):
        name = path.removeprefix(library.BUILTIN)
        if name not in library.BUILTINS:
            names = ", ".join(library.BUILTIN + known for known in library.BUILTINS)
            raise DataError(f"{path}: no such built-in text; there are {names}")
        return library.BUILTINS[name]()
    if path in library.KNOWN and not Path(path).exists():
        return read_file(library.find(path))
    return read_file(Path(path).expanduser())


def read_file(path: Path) -> str:
    """The text of a UTF-8 file, line ends kept.

    Raises:
        DataError: it is missing, empty or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        close = difflib.get_close_matches(path.name, library.KNOWN, 1)
        hint = f"; did you mean the corpus {close[0]}?" if close else ""
        raise DataError(f"{path}: cannot read this text: {error.strerror}{hint}") from error
    if not raw:
        raise DataError(f"{path}: this text is empty")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start:,} (0x{raw[error.start]:02x}); convert it, "
            f"for instance: iconv -f {encoding} -t utf-8 {path} > {path.stem}-utf8{path.suffix}"
        ) from error
