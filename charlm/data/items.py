"""Lists of lines, such as of names: the items, put into another order."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import CHUNK_CHARS, Ids
from charlm.errors import DataError
from charlm.randomness import generator

SEED = 0  # the order is the same for all runs, so that their validation parts are


def shuffle_items(ids: Ids, chars: str, path: Path) -> NDArray[np.int64]:
    """Write the lines of a text, whose last is ended, to a file in an order that looks random.

    `ids` (N,) stand for characters of `chars`. Blank lines are left out. Needs some 32 bytes of
    memory a line.

    Returns:
        Where each line begins in the file, and behind the last (n_items + 1,).

    Raises:
        DataError: all lines are blank.
    """
    begins, lengths = _items(ids, chars)
    if not len(begins):
        raise DataError("data.documents is lines, and this text has only blank ones")
    order = generator(SEED, "items").permutation(len(begins))
    begins, lengths = begins[order], lengths[order]
    ends = np.cumsum(lengths)
    long = np.flatnonzero(lengths > CHUNK_CHARS)  # such a line is written alone, in stretches
    cuts = np.searchsorted(ends, np.arange(CHUNK_CHARS, ends[-1], CHUNK_CHARS))
    cuts = np.unique(np.concatenate([[0], cuts, long, long + 1, [len(ends)]]))
    with path.open("wb") as file:
        for first, last in pairwise(cuts):
            if lengths[first] > CHUNK_CHARS:
                for start in range(begins[first], begins[first] + lengths[first], CHUNK_CHARS):
                    end = min(start + CHUNK_CHARS, begins[first] + lengths[first])
                    file.write(ids[start:end].tobytes())
            else:
                file.write(_gather(ids, begins[first:last], lengths[first:last]).data)
    return np.concatenate([[0], ends])


def _items(ids: Ids, chars: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each line that is not blank begins, and how long it is with its line feed."""
    line_feed, carriage_return = chars.index("\n"), chars.find("\r")
    places = [
        np.flatnonzero(ids[start : start + CHUNK_CHARS] == line_feed) + start
        for start in range(0, len(ids), CHUNK_CHARS)
    ]
    ends = np.concatenate(places) + 1
    begins = np.concatenate([[0], ends[:-1]])
    lengths = ends - begins
    written = (lengths > 1) & ((lengths > 2) | (ids[begins] != carriage_return))
    return begins[written], lengths[written]


def _gather(ids: Ids, begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> Ids:
    """The lines one after the other."""
    ends = np.cumsum(lengths)
    shift = np.repeat(begins - (ends - lengths), lengths)  # from a place here to one in ids
    return np.asarray(ids[shift + np.arange(ends[-1])])
