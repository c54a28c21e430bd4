"""Batches of inputs and targets. A batch depends only on the settings and the step number.

So a checkpoint holds no reading position: a run that resumes at step s asks for batch s.

B is the number of sequences in a batch, T is the number of characters in a sequence. A target of
`IGNORED` is left out of the loss. If several processes train a run, each gets its rows of the
batch, and B is the number of these.
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
    """Gives the batch of any step."""

    carries_state: bool  # whether sequence b of a step continues sequence b of the step before

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The inputs and the targets of a step, (B, T) each. Targets are one character ahead."""

    def n_targets(self, step: int) -> int:
        """The number of targets that are not IGNORED in the batch of all processes."""


class StreamBatches:
    """B contiguous streams through the text. Each step reads the next `seq_len` characters.

    Stream b starts at position b * N / B. From the end of the text it continues at the beginning.
    After N / B characters it reaches the start of stream b + 1, and one epoch is over.
    """

    carries_state = True

    def __init__(
        self, ids: AnyIds, train: TrainConfig, device: torch.device, rows: slice = slice(None)
    ) -> None:
        self._ids, self._seq_len = _Gather(ids, device), train.seq_len
        self._n_targets = train.batch_size * train.seq_len
        self._starts = (np.arange(train.batch_size) * len(ids) // train.batch_size)[rows]  # (B,)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        starts = self._starts + step * self._seq_len
        return self._ids.inputs_and_targets(starts, self._seq_len)

    def n_targets(self, step: int) -> int:  # noqa: ARG002
        return self._n_targets


class WindowBatches:
    """B windows per step, each from a fresh state, at uniformly random positions."""

    carries_state = False

    def __init__(
        self, ids: AnyIds, train: TrainConfig, device: torch.device, rows: slice = slice(None)
    ) -> None:
        self._ids, self._train, self._rows = _Gather(ids, device), train, rows
        self._stop = len(ids) - train.seq_len

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        random = generator(self._train.seed, "batches", step)
        starts = random.integers(0, self._stop, self._train.batch_size)[self._rows]
        return self._ids.inputs_and_targets(starts, self._train.seq_len)

    def n_targets(self, step: int) -> int:  # noqa: ARG002
        return self._train.batch_size * self._train.seq_len


class DocumentBatches:
    """B documents of a list per step, each from a fresh state. Each epoch has a new order.

    The inputs of a document begin with the line end of the document before it, so that its first
    character is predicted too. The last target is its own line end. A document longer than
    `seq_len` is cut into pieces, and each piece is read from a fresh state. Shorter pieces are
    padded to the longest of the batch, with `IGNORED` as targets.
    """

    carries_state = False

    def __init__(
        self, ids: TextIds, train: TrainConfig, device: torch.device, rows: slice = slice(None)
    ) -> None:
        self._ids, self._batch_size, self._seed = _Gather(ids, device), train.batch_size, train.seed
        self._rows = rows
        self._starts, self._lengths = pieces(ids, train.seq_len)  # (n_pieces,) each
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        chosen = self._chosen(step)[self._rows]  # (B,)
        lengths = self._lengths[chosen]  # (B,)
        x, y = self._ids.inputs_and_targets(self._starts[chosen] - 1, int(lengths.max()))
        padding = torch.arange(x.shape[1]) >= torch.from_numpy(lengths)[:, None]  # (B, T)
        return x, y.masked_fill(padding.to(y.device), IGNORED)

    def n_targets(self, step: int) -> int:
        return int(self._lengths[self._chosen(step)].sum())

    def _chosen(self, step: int) -> NDArray[np.int64]:
        """The pieces in the batch of all processes."""
        n = len(self._starts)
        epochs, positions = np.divmod(step * self._batch_size + np.arange(self._batch_size), n)
        chosen = np.empty_like(positions)  # (B,)
        for epoch in np.unique(epochs):
            chosen[epochs == epoch] = self._order(int(epoch))[positions[epochs == epoch]]
        return chosen

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The order of the pieces in an epoch. The last one is cached for the next step."""
        if epoch != self._epoch:
            self._epoch = epoch
            random = generator(self._seed, "batches", epoch)
            self._permutation = random.permutation(len(self._starts))
        return self._permutation


class _Gather:
    """Reads sequences of ids. Copies all ids to a GPU if a quarter of its free memory is enough."""

    def __init__(self, ids: AnyIds, device: torch.device) -> None:
        self._ids, self._device = ids, device
        self._on_device: Tensor | None = None
        if device.type == "cuda" and 4 * len(ids) < torch.cuda.mem_get_info(device)[0] // 4:
            self._on_device = torch.empty(len(ids), dtype=torch.int32, device=device)
            for i in range(0, len(ids), CHUNK_CHARS):
                chunk = torch.from_numpy(ids[i : i + CHUNK_CHARS].astype(np.int32))
                self._on_device[i : i + CHUNK_CHARS] = chunk

    def inputs_and_targets(self, starts: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T) of the sequences at `starts` (B,); T is `length`."""
        if self._on_device is not None:  # only the starts are copied to the GPU
            first = torch.from_numpy(starts).to(self._device)[:, None]
            offsets = torch.arange(length + 1, device=self._device)
            ids = self._on_device[(first + offsets) % len(self._ids)].long()  # (B, T+1)
        else:
            index = (starts[:, None] + np.arange(length + 1)) % len(self._ids)  # (B, T+1)
            ids = torch.from_numpy(self._ids[index].astype(np.int64)).to(self._device)
        return ids[:, :-1], ids[:, 1:]


def make_batches(
    ids: AnyIds, train: TrainConfig, device: torch.device, rows: slice = slice(None)
) -> Batches:
    """The batches of the training text `ids` (N,).

    Args:
        ids: the training text; `fit_batch` checks that it is long enough.
        train: the kind and the size of the batches, and the seed.
        device: where the tensors are.
        rows: those of this process; the default is the whole batch.
    """
    if train.batches == "items" and isinstance(ids, TextIds):
        return DocumentBatches(ids, train, device, rows)
    kind = StreamBatches if train.batches == "streams" else WindowBatches
    return kind(ids, train, device, rows)
