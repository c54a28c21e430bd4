"""Batches of inputs and targets. Which characters a step sees is a pure function of the step.

So there is no position to save: to resume at step s is to ask for batch s.

B sequences a batch, T characters a sequence.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.config import TrainConfig
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.randomness import generator


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

    def __init__(self, ids: Ids, batch_size: int, seq_len: int, device: torch.device) -> None:
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
        self, ids: Ids, batch_size: int, seq_len: int, device: torch.device, seed: int
    ) -> None:
        self._ids = _Gather(ids, device)
        self._n, self._batch_size, self._seq_len = len(ids), batch_size, seq_len
        self._seed = seed

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        last = self._n - self._seq_len
        starts = generator(self._seed, "batches", step).integers(0, last, self._batch_size)
        return self._ids.inputs_and_targets(starts, self._seq_len)


class _Gather:
    """Reads sequences out of the ids, on the GPU when they are a small part of its memory."""

    def __init__(self, ids: Ids, device: torch.device) -> None:
        self._ids, self._device = ids, device
        self._on_device: Tensor | None = None
        if device.type == "cuda" and 4 * ids.size < torch.cuda.mem_get_info(device)[0] // 4:
            self._on_device = torch.from_numpy(ids.astype(np.int32)).to(device)

    def inputs_and_targets(self, starts: NDArray[np.int64], length: int) -> tuple[Tensor, Tensor]:
        index = (starts[:, None] + np.arange(length + 1)) % self._ids.size  # (B, T+1)
        if self._on_device is not None:
            ids = self._on_device[torch.from_numpy(index).to(self._device)].long()
        else:
            ids = torch.from_numpy(self._ids[index].astype(np.int64)).to(self._device)
        return ids[:, :-1], ids[:, 1:]


def check_length(chars: int, train: TrainConfig) -> None:
    """Refuse a training text of so many characters that is too short for its batches.

    Raises:
        DataError: there is not one sequence and its next character, or not a character a stream.
    """
    need = max(train.seq_len + 1, train.batch_size)
    if chars < need:
        raise DataError(
            f"the training part of the text has {chars:,} characters, and train.seq_len "
            f"{train.seq_len} with train.batch_size {train.batch_size} needs {need:,}; lower them, "
            "hold out less (data.val_fraction), or give more text"
        )


def make_batches(ids: Ids, train: TrainConfig, device: torch.device) -> Batches:
    """The batches that `train` asks for, out of the training text `ids`, which is long enough."""
    if train.batches == "streams":
        return StreamBatches(ids, train.batch_size, train.seq_len, device)
    return WindowBatches(ids, train.batch_size, train.seq_len, device, train.seed)
