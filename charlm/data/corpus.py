"""A text as ids of a vocabulary, in parts: for training, validation and testing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charlm.config import DataConfig
from charlm.data.cache import Encoded, open_encoded
from charlm.data.sources import find_sources
from charlm.data.vocab import UNKNOWN, Ids, Vocab
from charlm.errors import DataError

Split = Literal["train", "val", "test", "all"]


class TextIds:
    """The ids of a stretch of text (N,), read from the disk where they are looked at.

    Of a list of items, `starts` (n_items + 1,) is where each begins, and the end.
    """

    def __init__(self, raw: Ids, table: Ids, starts: NDArray[np.int64] | None = None) -> None:
        self._raw, self._table, self.starts = raw, table, starts

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, places: slice | NDArray[np.int64]) -> Ids:
        """The ids at some places, of the places' shape."""
        return np.take(self._table, self._raw[places])

    def head(self, most: int | None) -> TextIds:
        """The first `most` of it, or all; of a list, the items within these, and one at least."""
        if most is not None and self.starts is not None and len(self.starts) > 1:
            most = max(most, int(self.starts[1]))
        return self.stretch(0, most)

    def stretch(self, start: int, stop: int | None) -> TextIds:
        """A part of it, still on the disk; of a list, the items that lie in it whole."""
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

    `sha256` is of the text in UTF-8, or in its bytes where those are the unit; where the
    parts are texts of their own, it is theirs with commas between. `n_distinct` characters are
    different, and `n_unknown` of the N are not in a limited vocabulary, so stand as `UNKNOWN`.
    """

    source: str
    sha256: str
    vocab: Vocab
    parts: dict[Split, TextIds]
    n_distinct: int
    n_unknown: int
    notices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(self.parts[split]) for split in ("train", "val", "test"))

    def split(self, split: Split) -> TextIds:
        """The ids of one part.

        Raises:
            DataError: it is `all` of a text whose parts are texts of their own.
        """
        if split not in self.parts:
            raise DataError("the parts are of different texts; name one: train, val or test")
        return self.parts[split]


Texts = tuple[Encoded | None, Encoded | None, Encoded | None]
"""What data.path, data.val_path and data.test_path name."""


def open_texts(data: DataConfig, expected: str | None = None) -> Texts:
    """The texts of `data`, encoded.

    Args:
        expected: the `sha256` that their corpus had, by which to find what was piped in.

    Raises:
        DataError: one is missing, empty or cannot be read as `data` says.
    """
    hashes = [*(expected or "").split(","), "", ""]
    path, val, test = (
        open_encoded(find_sources(path, data), data, sha256) if path else None
        for path, sha256 in zip((data.path, data.val_path, data.test_path), hashes, strict=False)
    )
    return path, val, test


def open_corpus(
    data: DataConfig,
    known: Vocab | None = None,
    extend: bool = True,
    expected: str | None = None,
    opened: Texts | None = None,
) -> Corpus:
    """The corpus of `data`.

    Args:
        known: a vocabulary that keeps its ids; what is new stands behind it.
        extend: False keeps a limited one as it is: what is new is unknown, as it was before.
        expected: as `open_texts` has it.
        opened: what that gave, if it was called before; pipes cannot be read again.

    Raises:
        DataError: the text is missing, empty or cannot be read as `data` says.
    """
    own = opened or open_texts(data, expected)
    texts = [text for text in own if text]
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(dict(zip(text.facts.chars, text.facts.counts, strict=True)))
    vocab = known if known and known.limited and not extend else _choose(counts, data, known)
    read = set(vocab.chars)
    return Corpus(
        source=", ".join((*data.path, *(data.val_path or ()), *(data.test_path or ()))),
        sha256=",".join(text.facts.sha256 if text else "" for text in own).rstrip(","),
        vocab=vocab,
        parts=_parts(texts, vocab, data),
        n_distinct=len(counts),
        n_unknown=sum(count for char, count in counts.items() if char not in read),
        notices=[notice for text in texts for notice in text.notices],
    )


def _choose(counts: Counter[str], data: DataConfig, known: Vocab | None) -> Vocab:
    """What is seen often enough, most often first where that is limited; sorted by code point."""
    if data.unit == "byte":
        return Vocab.of_bytes()
    an_end = "\n" if data.documents == "lines" else ""  # which an item must have
    chars = [char for char, count in counts.items() if count >= data.min_count or char == an_end]
    if data.is_limited:
        chars.sort(key=lambda char: (char != an_end, -counts[char], char))
        room = len(chars) if data.max_size is None else data.max_size - 1
        chars = [*[char for char in chars if char != UNKNOWN][:room], UNKNOWN]
    vocab = Vocab("".join(sorted(chars)), limited=data.is_limited)
    return vocab if known is None else known.extended(vocab)


def _parts(texts: list[Encoded], vocab: Vocab, data: DataConfig) -> dict[Split, TextIds]:
    whole, *others = [
        TextIds(text.ids, vocab.table(text.facts.chars), text.starts) for text in texts
    ]
    val = int(len(whole) * (1 - data.val_fraction - data.test_fraction))
    test = int(len(whole) * (1 - data.test_fraction))
    if whole.starts is not None:  # parted between two items
        val, test = (_nearest(whole.starts, place) for place in (val, test))
    parts: dict[Split, TextIds] = {
        "train": whole.stretch(0, val),
        "val": whole.stretch(val, test),
        "test": whole.stretch(test, None),
    }
    if not others:
        return parts | {"all": whole}
    named: list[Split] = [split for split in ("val", "test") if getattr(data, f"{split}_path")]
    return parts | dict(zip(named, others, strict=True))


def _nearest(starts: NDArray[np.int64], place: int) -> int:
    """The start of an item that is nearest to a place."""
    behind = min(int(np.searchsorted(starts, place)), len(starts) - 1)
    around = starts[max(0, behind - 1) : behind + 1]
    return int(around[np.abs(around - place).argmin()])
