"""Lists: texts in which every line that is not blank is a document, such as names."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import CHUNK_CHARS, Ids
from charlm.errors import DataError
from charlm.randomness import generator

SEED = 0  # not the seed of a run, so that all runs have the same validation part


def shuffle_documents(ids: Ids, chars: str, path: Path) -> NDArray[np.int64]:
    """Write the lines of a text to a file in random order, without the blank lines.

    Needs about 32 bytes of memory per line.

    Args:
        ids: the text (N,); id i is the character `chars[i]`. The last line must have a line end.
        chars: the characters by id.
        path: the file to write.

    Returns:
        The start of each line in the file, and the end of the last line, (n_documents + 1,).

    Raises:
        DataError: all lines are blank.
    """
    starts, lengths = _find_documents(ids, chars)
    if not len(starts):
        raise DataError("data.documents is lines, but all lines of this text are blank")
    # The name of the random stream fixes the order. It must not change.
    order = generator(SEED, "items").permutation(len(starts))
    starts, lengths = starts[order], lengths[order]
    ends = np.cumsum(lengths)
    long = np.flatnonzero(lengths > CHUNK_CHARS)  # each of these lines is written on its own
    cuts = np.searchsorted(ends, np.arange(CHUNK_CHARS, ends[-1], CHUNK_CHARS))
    cuts = np.unique(np.concatenate([[0], cuts, long, long + 1, [len(ends)]]))
    with path.open("wb") as file:
        for first, last in pairwise(cuts):
            if lengths[first] > CHUNK_CHARS:
                line_end = starts[first] + lengths[first]
                for start in range(starts[first], line_end, CHUNK_CHARS):
                    file.write(ids[start : min(start + CHUNK_CHARS, line_end)].tobytes())
            else:
                file.write(_gather(ids, starts[first:last], lengths[first:last]).data)
    return np.concatenate([[0], ends])


def _find_documents(ids: Ids, chars: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The start of each line that is not blank, and its length with the line end."""
    line_feed, carriage_return = chars.index("\n"), chars.find("\r")
    line_feeds = [
        np.flatnonzero(ids[start : start + CHUNK_CHARS] == line_feed) + start
        for start in range(0, len(ids), CHUNK_CHARS)
    ]
    ends = np.concatenate(line_feeds) + 1
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    kept = (lengths > 1) & ((lengths > 2) | (ids[starts] != carriage_return))
    return starts[kept], lengths[kept]


def _gather(ids: Ids, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Ids:
    """The lines one after the other."""
    ends = np.cumsum(lengths)
    shift = np.repeat(starts - (ends - lengths), lengths)  # from a position here to one in ids
    return np.asarray(ids[shift + np.arange(ends[-1])])
