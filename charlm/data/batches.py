"""Batches of inputs and targets. Which characters a step sees is a pure function of the step.

So there is no position to save: to resume at step s is to ask for batch s.

B sequences a batch, T characters a sequence; a target of `IGNORED` is not to be predicted.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.config import TrainConfig
from charlm.data.amounts import AnyIds, pieces
from charlm.data.corpus import TextIds
from charlm.data.vocab import CHUNK_CHARS
from charlm.randomness import generator

IGNORED = -1


class Batches(Protocol):
    """An endless supply of batches."""

    carries_state: bool  # whether sequence b of a step goes on where b of the step before ended

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a step, each (B, T), the targets one character ahead."""


class StreamBatches:
    """B contiguous streams through the text, each `seq_len` further on with every step.

    Stream b starts at b/B of the text and goes round: past the end it goes on at the beginning.
    After N/B characters it has reached the place where stream b+1 started, and one epoch is over.
    """

    carries_state = True

    def __init__(self, ids: AnyIds, batch_size: int, seq_len: int, device: torch.device) -> None:
        self._ids = _Gather(ids, device)
        self._seq_len = seq_len
        self._starts = np.arange(batch_size) * len(ids) // batch_size  # (B,)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        starts = self._starts + step * self._seq_len
        return self._ids.inputs_and_targets(starts, self._seq_len)


class WindowBatches:
    """B windows at places drawn uniformly, anew at every step."""

    carries_state = False

    def __init__(
        self, ids: AnyIds, batch_size: int, seq_len: int, device: torch.device, seed: int
    ) -> None:
        self._ids = _Gather(ids, device)
        self._n, self._batch_size, self._seq_len = len(ids), batch_size, seq_len
        self._seed = seed

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        last = self._n - self._seq_len
        starts = generator(self._seed, "batches", step).integers(0, last, self._batch_size)
        return self._ids.inputs_and_targets(starts, self._seq_len)


class DocumentBatches:
    """B items of a list a step, each from a fresh state, in a new order with every epoch.

    An item is read from the end of the one before it, so that its first character is predicted,
    and to its own end. Those longer than `seq_len` are read in pieces, each from a fresh state;
    shorter ones are filled up to the longest of the batch with what is `IGNORED`.
    """

    carries_state = False

    def __init__(
        self, ids: TextIds, batch_size: int, seq_len: int, device: torch.device, seed: int
    ) -> None:
        self._ids = _Gather(ids, device)
        self._batch_size, self._seed = batch_size, seed
        self._starts, self._lengths = pieces(ids, seq_len)  # (n_pieces,) each
        self._epoch, self._places = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        n = len(self._starts)
        epochs, places = np.divmod(step * self._batch_size + np.arange(self._batch_size), n)
        chosen = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen[epochs == epoch] = self._order(int(epoch))[places[epochs == epoch]]
        lengths = self._lengths[chosen]  # (B,)
        x, y = self._ids.inputs_and_targets(self._starts[chosen] - 1, int(lengths.max()))
        beyond = torch.arange(x.shape[1]) >= torch.from_numpy(lengths)[:, None]  # (B, T)
        return x, y.masked_fill(beyond.to(y.device), IGNORED)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The pieces in the order of an epoch; the last is kept, and asked for again."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._places = generator(self._seed, "batches", epoch).permutation(len(self._starts))
        return self._places


class _Gather:
    """Reads sequences out of the ids, on the GPU when they are a small part of its memory."""

    def __init__(self, ids: AnyIds, device: torch.device) -> None:
        self._ids, self._device = ids, device
        self._on_device: Tensor | None = None
        if device.type == "cuda" and 4 * len(ids) < torch.cuda.mem_get_info(device)[0] // 4:
            self._on_device = torch.empty(len(ids), dtype=torch.int32, device=device)
            for i in range(0, len(ids), CHUNK_CHARS):
                stretch = torch.from_numpy(ids[i : i + CHUNK_CHARS].astype(np.int32))
                self._on_device[i : i + CHUNK_CHARS] = stretch

    def inputs_and_targets(self, starts: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
        if self._on_device is not None:  # only the starts travel
            first = torch.from_numpy(starts).to(self._device)[:, None]
            ahead = torch.arange(length + 1, device=self._device)
            ids = self._on_device[(first + ahead) % len(self._ids)].long()  # (B, T+1)
        else:
            index = (starts[:, None] + np.arange(length + 1)) % len(self._ids)  # (B, T+1)
            ids = torch.from_numpy(self._ids[index].astype(np.int64)).to(self._device)
        return ids[:, :-1], ids[:, 1:]


def make_batches(ids: AnyIds, train: TrainConfig, device: torch.device) -> Batches:
    """The batches that `train` asks for, out of the training text `ids`, which is long enough."""
    if train.batches == "items" and isinstance(ids, TextIds):
        return DocumentBatches(ids, train.batch_size, train.seq_len, device, train.seed)
    if train.batches == "streams":
        return StreamBatches(ids, train.batch_size, train.seq_len, device)
    return WindowBatches(ids, train.batch_size, train.seq_len, device, train.seed)
