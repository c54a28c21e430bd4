"""How much training data a text has. Needs no torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from charlm.config import TrainConfig
from charlm.data.corpus import TextIds
from charlm.data.vocab import Ids
from charlm.errors import DataError

AnyIds = Ids | TextIds  # (N,)


def pieces(ids: TextIds, max_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut the documents of a list into pieces of at most `max_length` characters.

    Needs about 50 bytes of memory per document.

    Returns:
        The start and the length of each piece, (n_pieces,) each.
    """
    assert ids.starts is not None
    lengths = np.diff(ids.starts)
    counts = -(-lengths // max_length)  # pieces per document
    document = np.repeat(np.arange(len(lengths)), counts)  # the document of each piece
    first = np.repeat(np.cumsum(counts) - counts, counts)  # the first piece of that document
    offsets = (np.arange(len(document)) - first) * max_length
    return ids.starts[document] + offsets, np.minimum(lengths[document] - offsets, max_length)


def _count_pieces(ids: TextIds, max_length: int) -> int:
    assert ids.starts is not None
    return int((-(-np.diff(ids.starts) // max_length)).sum())


def steps_per_epoch(ids: AnyIds, train: TrainConfig) -> float:
    """The number of steps in an epoch.

    An epoch trains on as many characters as the text has. With `train.batches: items` it trains
    on every document of the list once.
    """
    if train.batches == "items" and isinstance(ids, TextIds):
        return _count_pieces(ids, train.seq_len) / train.batch_size
    return len(ids) / (train.batch_size * train.seq_len)


def fit_batch(ids: AnyIds, train: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Reduce the batch size if it is larger than the number of sequences in the text `ids`.

    Returns:
        The settings, and one notice for the user if they were changed.

    Raises:
        DataError: the text is shorter than one sequence and its next character, or the list has
            no documents.
    """
    if train.batches == "items" and isinstance(ids, TextIds):
        available, what = _count_pieces(ids, train.seq_len), "pieces of documents"
        if not available:
            raise DataError(
                "the training part of the list has no documents; hold out less "
                "(data.val_fraction), or give a longer list"
            )
    else:
        available, what = len(ids) // train.seq_len, f"sequences of {train.seq_len} characters"
        if len(ids) <= train.seq_len:
            raise DataError(
                f"the training part of the text has {len(ids):,} characters, and train.seq_len "
                f"{train.seq_len} needs {train.seq_len + 1:,}; lower it (for a gpt: "
                "model.context), hold out less (data.val_fraction), or give a longer text"
            )
    if available >= train.batch_size:
        return train, []
    smaller = {"batch_size": available, "grad_accum": math.gcd(train.grad_accum, available)}
    return train.model_copy(update=smaller), [
        f"the training part of the text has {len(ids):,} characters, {available:,} {what}: "
        f"train.batch_size is {available}, not {train.batch_size}"
    ]
