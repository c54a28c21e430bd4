"""How much there is to learn from in a text. Needs no torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from charlm.config import TrainConfig
from charlm.data.corpus import TextIds
from charlm.data.vocab import Ids
from charlm.errors import DataError

AnyIds = Ids | TextIds  # (N,)


def pieces(ids: TextIds, longest: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the items of a list begin and how long they are, cut to `longest` characters.

    Some 50 bytes of memory an item.
    """
    assert ids.starts is not None
    lengths = np.diff(ids.starts)
    counts = -(-lengths // longest)  # pieces an item
    of = np.repeat(np.arange(len(lengths)), counts)
    offsets = (np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)) * longest
    return ids.starts[of] + offsets, np.minimum(lengths[of] - offsets, longest)


def _count_pieces(ids: TextIds, longest: int) -> int:
    assert ids.starts is not None
    return int((-(-np.diff(ids.starts) // longest)).sum())


def steps_per_epoch(ids: AnyIds, train: TrainConfig) -> float:
    """Steps in which as many characters are learnt from as the text has; or all its items."""
    if train.batches == "items" and isinstance(ids, TextIds):
        return _count_pieces(ids, train.seq_len) / train.batch_size
    return len(ids) / (train.batch_size * train.seq_len)


def fit_batch(ids: AnyIds, train: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """Settings whose batch is no larger than the text `ids`, and a word on it where that changed.

    Raises:
        DataError: there is not one sequence and its next character.
    """
    if train.batches == "items" and isinstance(ids, TextIds):
        room, what = _count_pieces(ids, train.seq_len), "items"
    else:
        room, what = len(ids) // train.seq_len, f"sequences of {train.seq_len} characters"
    if room < 1 and what == "items":
        raise DataError(
            "the training part of the list has no items; hold out less (data.val_fraction), or "
            "give more"
        )
    if what != "items" and len(ids) <= train.seq_len:
        raise DataError(
            f"the training part of the text has {len(ids):,} characters, and train.seq_len "
            f"{train.seq_len} needs {train.seq_len + 1:,}; lower it (of a gpt, model.context), "
            "hold out less (data.val_fraction), or give more text"
        )
    if room >= train.batch_size:
        return train, []
    smaller = {"batch_size": room, "grad_accum": math.gcd(train.grad_accum, room)}
    return train.model_copy(update=smaller), [
        f"the training part of the text has {len(ids):,} characters, {room:,} {what}: "
        f"train.batch_size is {room}, not {train.batch_size}"
    ]
