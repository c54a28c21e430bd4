"""The text that a model is evaluated on."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from charlm.checkpoint.format import Meta
from charlm.data.corpus import Corpus, Split, TextIds, open_cached, open_corpus
from charlm.data.vocab import CHUNK_CHARS, Vocab
from charlm.errors import DataError


def text_to_score(
    meta: Meta,
    paths: Sequence[str],
    split: Split,
    skip_unknown: bool,
    notify: Callable[[str], None] = lambda _: None,
    only_cached: bool = False,
) -> tuple[TextIds, int]:
    """Open a text, and encode a split of it for a model.

    Args:
        meta: of the model's checkpoint.
        paths: the files of the text; empty for the text that the model was trained on.
        skip_unknown: whether to leave out characters that the model does not know.
        notify: is called with each line that the user should read.
        only_cached: whether to take the text that the model was trained on from the cache only,
            and to open no path that the checkpoint names.

    Returns:
        The ids, and the number of characters left out.

    Raises:
        DataError: the text is missing, has unknown characters, has fewer than two known ones in
            this split, or is no longer the text that the model was trained on.
    """
    data = meta.config.data
    if paths:
        data = data.model_copy(update={"path": tuple(paths), "val_path": None, "test_path": None})
    vocab = meta.vocabulary
    expected = None if paths else meta.corpus.sha256
    opened = open_cached(data, meta.corpus.sha256) if only_cached else None
    corpus = open_corpus(
        data, vocab, extend=False, expected=expected, opened=opened, named=paths or ()
    )
    if expected not in (None, corpus.sha256):
        own = {"val": data.val_path, "test": data.test_path}.get(split)
        raise DataError(
            f"{corpus.source}: not the text this model was trained on; to score it anyway: "
            f"data={shlex.join(own or data.path)} split={'all' if own else split}"
        )
    for notice in corpus.notices:
        notify(notice)
    ids = corpus.split(split)
    unknown = _Unknown(ids, vocab)
    if unknown.count and not skip_unknown:
        raise DataError(
            f"{corpus.source}: {unknown.describe(corpus)}; on_unknown=skip leaves them out"
        )
    if (known := len(ids) - unknown.count) < 2:
        raise DataError(
            f"{corpus.source}: the {split} part has {known} characters and there is nothing to "
            f"score; {'give a longer text' if split == 'all' else 'choose another split'}"
        )
    return (unknown.remaining_ids() if unknown.count else ids), unknown.count


class _Unknown:
    """The characters of a text that a vocabulary does not have, found chunk by chunk."""

    def __init__(self, ids: TextIds, vocab: Vocab) -> None:
        self._ids, self._vocab = ids, vocab
        self.count, self._first, self._distinct = 0, 0, np.empty(0, np.int64)
        for start in range(0, len(ids), CHUNK_CHARS):
            chunk = ids[start : start + CHUNK_CHARS]
            positions = np.flatnonzero(chunk >= len(vocab))
            if len(positions) and not self.count:
                self._first = start + int(positions[0])
            self.count += len(positions)
            self._distinct = np.union1d(self._distinct, chunk[positions])

    def describe(self, corpus: Corpus) -> str:
        """Which characters they are, how many, and the position of the first."""
        first = corpus.vocab.chars[int(self._ids[self._first : self._first + 1][0])]
        distinct = "".join(sorted(corpus.vocab.chars[i] for i in self._distinct))
        return self._vocab.describe_unknown(
            distinct, self.count, len(self._ids), self._first, first
        )

    def remaining_ids(self) -> TextIds:
        """The ids of all other characters, mapped from a temporary file.

        Raises:
            DataError: the file cannot be written.
        """
        try:
            return self._write_known()
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()}: cannot write the text without unknown characters "
                f"here: {error.strerror}; free disk space, or set TMPDIR to another folder"
            ) from error

    def _write_known(self) -> TextIds:
        size, starts, n_known = len(self._vocab), [], 0
        with tempfile.TemporaryFile() as file:
            for start in range(0, len(self._ids), CHUNK_CHARS):
                chunk = self._ids[start : start + CHUNK_CHARS]
                known = chunk < size
                file.write(chunk[known].data)
                if self._ids.starts is not None:  # documents start earlier than before
                    first, last = np.searchsorted(self._ids.starts, [start, start + len(chunk)])
                    positions = self._ids.starts[first:last] - start
                    starts.append(n_known + np.cumsum(known)[positions] - known[positions])
                n_known += int(known.sum())
            file.flush()
            ids = np.asarray(np.memmap(file, chunk.dtype, "r"))
        if self._ids.starts is None:
            return TextIds(ids, np.arange(size))
        return TextIds(ids, np.arange(size), np.concatenate([*starts, [n_known]]))
