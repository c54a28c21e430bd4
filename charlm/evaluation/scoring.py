"""The text that a model is to be measured by."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence

import numpy as np

from charlm.checkpoint.format import Meta
from charlm.data.corpus import Corpus, Split, TextIds, open_corpus
from charlm.data.vocab import CHUNK_CHARS, Vocab
from charlm.errors import DataError


def text_to_score(
    meta: Meta, paths: Sequence[str], split: Split, skip_unknown: bool
) -> tuple[TextIds, int]:
    """The ids of a split of the text at `paths`, or of the one trained on where there are none,
    and how many characters of it are unknown to the model and left out.

    Raises:
        DataError: the text is missing, has unknown characters, is not the one trained on, or has
            no such split.
    """
    data = meta.config.data
    if paths:
        data = data.model_copy(update={"path": tuple(paths), "val_path": None, "test_path": None})
    vocab = meta.vocabulary
    expected = None if paths else meta.corpus.sha256
    corpus = open_corpus(data, vocab, extend=False, expected=expected)
    if expected not in (None, corpus.sha256):
        own = {"val": data.val_path, "test": data.test_path}.get(split)
        raise DataError(
            f"{corpus.source}: not the text this model was trained on; to score it all the same: "
            f"data={shlex.join(own or data.path)} split={'all' if own else split}"
        )
    ids = corpus.split(split)
    unknown = _Unknown(ids, vocab)
    if unknown.count and not skip_unknown:
        raise DataError(
            f"{corpus.source}: {unknown.describe(corpus)}; on_unknown=skip leaves such out"
        )
    if (known := len(ids) - unknown.count) < 2:
        raise DataError(
            f"{corpus.source}: the {split} part has {known} characters and there is nothing to "
            "score; take another split"
        )
    return (unknown.left_out() if unknown.count else ids), unknown.count


class _Unknown:
    """The places in a text where a vocabulary does not have the character, found piece by piece."""

    def __init__(self, ids: TextIds, vocab: Vocab) -> None:
        self._ids, self._vocab = ids, vocab
        self.count, self._first, self._new = 0, 0, np.empty(0, np.int64)
        for start in range(0, len(ids), CHUNK_CHARS):
            piece = ids[start : start + CHUNK_CHARS]
            places = np.flatnonzero(piece >= len(vocab))
            if len(places) and not self.count:
                self._first = start + int(places[0])
            self.count += len(places)
            self._new = np.union1d(self._new, piece[places])

    def describe(self, corpus: Corpus) -> str:
        """Which they are, how many, and where the first is."""
        first = corpus.vocab.chars[int(self._ids[self._first : self._first + 1][0])]
        where = (
            f"{self.count:,} of {len(self._ids):,} characters, the first at character "
            f"{self._first:,}"
        )
        distinct = "".join(sorted(corpus.vocab.chars[i] for i in self._new))
        return self._vocab.describe_unknown(distinct, where, first)

    def left_out(self) -> TextIds:
        """The ids of the others, on the disk as long as they are used."""
        try:
            return self._written()
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()}: cannot write the text without unknown characters "
                f"here: {error.strerror}; make room, or name another folder in TMPDIR"
            ) from error

    def _written(self) -> TextIds:
        size, starts, before = len(self._vocab), [], 0
        with tempfile.TemporaryFile() as file:
            for start in range(0, len(self._ids), CHUNK_CHARS):
                piece = self._ids[start : start + CHUNK_CHARS]
                file.write(piece[piece < size].data)
                if self._ids.starts is not None:  # what stood at a place stands further back now
                    first, last = np.searchsorted(self._ids.starts, [start, start + len(piece)])
                    places = self._ids.starts[first:last] - start
                    starts.append(before + np.cumsum(piece < size)[places] - (piece < size)[places])
                before += int((piece < size).sum())
            file.flush()
            ids = np.asarray(np.memmap(file, piece.dtype, "r"))
        if self._ids.starts is None:
            return TextIds(ids, np.arange(size))
        return TextIds(ids, np.arange(size), np.concatenate([*starts, [before]]))
