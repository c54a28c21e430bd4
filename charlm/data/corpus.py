"""A text as ids of a vocabulary, split into parts for training, validation and testing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from charlm.config import DataConfig
from charlm.data.cache import open_encoded
from charlm.data.sources import Source, find_sources
from charlm.data.verify import Encoded
from charlm.data.vocab import UNKNOWN, Ids, Vocab
from charlm.errors import DataError
from charlm.files import cache_folder

Split = Literal["train", "val", "test", "all"]


class TextIds:
    """The ids of a part of a text (N,). They are read from the disk when they are indexed.

    Args:
        raw: the raw ids (N,), usually a memory map.
        table: the id of each raw id.
        starts: of a list, the start of each document, and the end (n_documents + 1,).
    """

    def __init__(self, raw: Ids, table: Ids, starts: NDArray[np.int64] | None = None) -> None:
        self._raw, self._table, self.starts = raw, table, starts

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, positions: slice | NDArray[np.int64]) -> Ids:
        """The ids at these positions, in the shape of `positions`.

        Raises:
            DataError: a raw id on the disk has no character. This is not checked before it is read.
        """
        raw = self._raw[positions]
        try:
            return np.take(self._table, raw)
        except IndexError as error:
            raise DataError(
                f"{cache_folder() / 'encoded'}: an encoded text in this folder was altered; delete "
                "the folder, and the text is encoded again"
            ) from error

    def head(self, max_chars: int | None) -> TextIds:
        """The first `max_chars` characters, or all of them.

        Of a list: the documents that end within `max_chars`, but at least the first one.
        """
        if max_chars is not None and self.starts is not None and len(self.starts) > 1:
            max_chars = max(max_chars, int(self.starts[1]))
        return self.stretch(0, max_chars)

    def stretch(self, start: int, stop: int | None) -> TextIds:
        """The characters from `start` to `stop`, still on the disk.

        Of a list: the documents that lie entirely in this range.
        """
        if self.starts is None:
            return TextIds(self._raw[start:stop], self._table)
        stop = len(self) if stop is None else stop
        first = int(np.searchsorted(self.starts, start, "left"))
        last = max(first, int(np.searchsorted(self.starts, stop, "right")) - 1)
        start, stop = int(self.starts[first]), int(self.starts[last])
        starts = self.starts[first : last + 1] - start
        return TextIds(self._raw[start:stop], self._table, starts)


@dataclass(frozen=True)
class Corpus:
    """A text of N characters.

    Attributes:
        source: the paths, as the user gave them.
        sha256: of the text in UTF-8, or of its bytes if the unit is byte. Several texts (such as
            data.path and data.val_path) have their hashes joined with commas.
        vocab: the vocabulary of the ids.
        parts: the ids of each part.
        counts: how often each character occurs.
        n_distinct: the number of different characters.
        n_unknown: the number of the N characters that a limited vocabulary does not have. They
            are read as `UNKNOWN`.
        notices: messages for the user.
    """

    source: str
    sha256: str
    vocab: Vocab
    parts: dict[Split, TextIds]
    counts: Counter[str]
    n_distinct: int
    n_unknown: int
    notices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(self.parts[split]) for split in ("train", "val", "test"))

    def split(self, split: Split) -> TextIds:
        """The ids of one part.

        Raises:
            DataError: the part is `all`, but the parts are separate texts.
        """
        if split not in self.parts:
            raise DataError("the parts are separate texts; choose one: train, val or test")
        return self.parts[split]


Texts = tuple[Encoded | None, Encoded | None, Encoded | None]
"""The texts of data.path, data.val_path and data.test_path."""


def open_texts(
    data: DataConfig, expected: str | None = None, named: Collection[str] | None = None
) -> Texts:
    """Open the texts that `data` names. Those that are not in the cache are encoded first.

    Args:
        data: the paths, and how to read them.
        expected: the `sha256` that their corpus had before. Texts from a pipe are found by it.
        named: the paths that the user gave; see `find_sources`.

    Raises:
        DataError: a text is missing or empty, or cannot be read as `data` says.
    """

    def open_one(path: Sequence[str], sha256: str) -> Encoded:
        sources = find_sources(path, data, named)
        text = open_encoded(sources, data, sha256)
        text.notices.extend(notice for source in sources for notice in source.notices)
        return text

    return _each_text(data, expected, open_one)


def open_cached(data: DataConfig, expected: str) -> Texts:
    """Open the texts of `data` by their hashes alone. No path is opened.

    Raises:
        DataError: a text is not in the cache.
    """

    def refuse() -> IO[bytes]:
        raise DataError("it is not in the cache; charlm eval reads it again")

    def open_one(_: Sequence[str], sha256: str) -> Encoded:
        return open_encoded([Source("the text", refuse, once=True)], data, sha256)

    return _each_text(data, expected, open_one)


def _each_text(
    data: DataConfig, expected: str | None, open_one: Callable[[Sequence[str], str], Encoded]
) -> Texts:
    hashes = [*(expected or "").split(","), "", ""]
    path, val, test = (
        open_one(path, sha256) if path else None
        for path, sha256 in zip((data.path, data.val_path, data.test_path), hashes, strict=False)
    )
    return path, val, test


def open_corpus(
    data: DataConfig,
    known: Vocab | None = None,
    extend: bool = True,
    expected: str | None = None,
    opened: Texts | None = None,
    named: Collection[str] | None = None,
) -> Corpus:
    """Open the corpus of `data`: its texts, their vocabulary and their parts.

    Args:
        data: the paths, how to read them, and how to split them.
        known: a vocabulary whose ids stay. New characters get the ids after it.
        extend: if False, a limited `known` gets no new characters. They are read as unknown.
        expected: see `open_texts`.
        opened: the result of `open_texts`, if it was called before. A pipe cannot be read twice.
        named: the paths that the user gave; see `find_sources`.

    Raises:
        DataError: a text is missing or empty, or cannot be read as `data` says.
    """
    given = opened or open_texts(data, expected, named)
    texts = [text for text in given if text]
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(dict(zip(text.facts.chars, text.facts.counts, strict=True)))
    vocab = known if known and known.limited and not extend else _choose_vocab(counts, data, known)
    chars = set(vocab.chars)
    return Corpus(
        source=", ".join((*data.path, *(data.val_path or ()), *(data.test_path or ()))),
        sha256=",".join(text.facts.sha256 if text else "" for text in given).rstrip(","),
        vocab=vocab,
        parts=_parts(texts, vocab, data),
        counts=counts,
        n_distinct=len(counts),
        n_unknown=sum(count for char, count in counts.items() if char not in chars),
        notices=[notice for text in texts for notice in text.notices],
    )


def _choose_vocab(counts: Counter[str], data: DataConfig, known: Vocab | None) -> Vocab:
    """The characters that occur often enough, sorted by code point, after those of `known`.

    A limited vocabulary has the most frequent ones (of equal ones, the lower code point) and
    `UNKNOWN`.
    """
    if data.unit == "byte":
        return Vocab.of_bytes()
    line_end = "\n" if data.documents == "lines" else ""  # always kept: it ends every document
    chars = [
        char for char, count in counts.items() if count >= data.vocab_min_count or char == line_end
    ]
    if data.is_limited:
        chars.sort(key=lambda char: (char != line_end, -counts[char], char))
        n_kept = len(chars) if data.vocab_size is None else data.vocab_size - 1
        chars = [*[char for char in chars if char != UNKNOWN][:n_kept], UNKNOWN]
    vocab = Vocab("".join(sorted(chars)), limited=data.is_limited)
    return vocab if known is None else known.extended(vocab)


def _parts(texts: list[Encoded], vocab: Vocab, data: DataConfig) -> dict[Split, TextIds]:
    whole, *others = [
        TextIds(text.ids, vocab.table(text.facts.chars), text.starts) for text in texts
    ]
    val = int(len(whole) * (1 - data.val_fraction - data.test_fraction))
    test = int(len(whole) * (1 - data.test_fraction))
    if whole.starts is not None:  # a document is never split
        val, test = (_nearest_start(whole.starts, position) for position in (val, test))
    parts: dict[Split, TextIds] = {
        "train": whole.stretch(0, val),
        "val": whole.stretch(val, test),
        "test": whole.stretch(test, None),
    }
    if not others:
        return parts | {"all": whole}
    named: list[Split] = [split for split in ("val", "test") if getattr(data, f"{split}_path")]
    return parts | dict(zip(named, others, strict=True))


def _nearest_start(starts: NDArray[np.int64], position: int) -> int:
    """The start of a document that is nearest to a position; the end of the list counts as one."""
    after = min(int(np.searchsorted(starts, position)), len(starts) - 1)
    candidates = starts[max(0, after - 1) : after + 1]
    return int(candidates[np.abs(candidates - position).argmin()])
