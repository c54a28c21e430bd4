"""Evaluation: the loss of a model on a text, in nats.

It is deterministic, and computed in float32 (TF32 on a GPU that supports it). Of a text of N
characters, N - 1 are scored, because nothing precedes the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.config import EvalConfig
from charlm.data.amounts import AnyIds, pieces
from charlm.data.batches import IGNORED
from charlm.data.corpus import TextIds
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.evaluation.loss import summed_nll
from charlm.evaluation.windows import stride_of, windows
from charlm.models import CharModel, State
from charlm.models.base import Forward, evaluating
from charlm.processes import Processes
from charlm.randomness import generator
from charlm.units import Likelihood

WARMUP = 512  # characters from which a row of a stream gets its state
MIN_ROW = 1024  # characters of a row


class InterruptedEvaluationError(Exception):
    """The evaluation was stopped before its end."""


@dataclass(frozen=True)
class Score(Likelihood):
    """A likelihood, and how it was measured."""

    protocol: str
    description: str


def evaluate(
    model: CharModel,
    ids: AnyIds,
    config: EvalConfig,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
    chars_at_once: int = 8192,
    rows: int = 1,
    forward: Forward | None = None,
    processes: Processes | None = None,
) -> Score:
    """Score a text by the protocol of `config`. The model and the global generator do not change.

    Args:
        ids: (N,).
        seed: decides the positions of random windows.
        should_stop: is called before each batch; evaluation stops where it returns True.
        chars_at_once: the number of characters in a batch, which limits the memory for logits. It
            changes no more than rounding.
        rows: the largest number of pieces that a recurrent network reads side by side with the
            protocol `stream`. More are faster; see `_read_stream`.
        forward: computes the model's logits in another way, such as a kernel.
        processes: those that score the text together. Windows and documents are shared out. The
            stream of a recurrent network is read by the first, while the others wait.

    Raises:
        DataError: the text has fewer than two characters, or the protocol is `items` and the text
            has no documents.
        InterruptedEvaluationError: `should_stop` returned True.
    """
    if len(ids) < 2:
        raise DataError(f"evaluation needs a text of 2 characters or more, this has {len(ids)}")
    reader = _Reader(model, forward or model, should_stop, chars_at_once, processes or Processes())
    description, stopped = "", False
    with evaluating(model), torch.inference_mode():
        try:
            description = _read(reader, ids, config, seed, rows)
        except InterruptedEvaluationError:
            stopped = True
    nats, chars, n_stopped = reader.processes.sum(reader.nats, reader.chars, stopped)
    if n_stopped:
        raise InterruptedEvaluationError
    return Score(nats, int(chars), config.protocol, description)


def _read(reader: _Reader, ids: AnyIds, config: EvalConfig, seed: int, rows: int) -> str:
    """Read the text by the protocol; return how this was done."""
    if config.protocol == "windows":
        return _read_random(reader, ids, config, seed)
    if config.protocol == "items":
        return _read_documents(reader, ids)
    if reader.model.context is None:
        return _read_stream(reader, ids, rows)
    return _read_sliding(reader, ids, reader.model.context)


@dataclass
class _Reader:
    """Reads batches, and sums their losses in float64 on the CPU."""

    model: CharModel
    forward: Forward
    should_stop: Callable[[], bool]
    chars_at_once: int
    processes: Processes
    nats: float = 0.0
    chars: int = 0
    _next: int = 0  # the process that reads the next batch

    def is_next(self) -> bool:
        """Whether this process reads the next batch of those that are shared out."""
        is_mine = self._next == self.processes.rank
        self._next = (self._next + 1) % self.processes.size
        return is_mine

    def read(self, x: Ids, y: Ids, state: State | None = None, skip: int = 0) -> State:
        """Read x (B, T), and score the targets y (B, T) without the first `skip` of each row."""
        if self.should_stop():
            raise InterruptedEvaluationError
        logits, state = self.forward(self._tensor(x), state)
        self.nats += float(summed_nll(logits[:, skip:], self._tensor(y[:, skip:])))
        self.chars += int((y[:, skip:] != IGNORED).sum())
        return state

    def read_windows(
        self, ids: AnyIds, starts: NDArray[np.int64], length: int, skip: int = 0
    ) -> None:
        """Read the windows of `length` characters at `starts`, each from a fresh state."""
        rows = max(1, self.chars_at_once // length)
        for i in filter(lambda _: self.is_next(), range(0, len(starts), rows)):
            batch = ids[starts[i : i + rows, None] + np.arange(length + 1)]  # (B, T+1)
            self.read(batch[:, :-1], batch[:, 1:], skip=skip)

    def _tensor(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(self.model.device)


def _read_stream(reader: _Reader, ids: AnyIds, rows: int) -> str:
    """Read the text once, and carry the state from batch to batch.

    In several rows, each row but the first starts with the last WARMUP characters of the row
    before it. They are not scored: they give the row a state.
    """
    n = len(ids) - 1
    rows = max(1, min(rows, n // MIN_ROW))
    warmup = WARMUP if rows > 1 else 0
    scored = -(-(n - warmup) // rows)  # of each row; the first one scores its warmup, too
    length = warmup + scored
    starts = scored * np.arange(rows)[:, None]  # (B, 1)
    state: State | None = None
    step = max(1, reader.chars_at_once // rows)
    for first in range(0, length, step) if reader.processes.is_first else ():
        columns = np.arange(first, min(first + step, length) + 1)  # (T+1,)
        positions = starts + columns
        batch = ids[np.minimum(positions, n)].astype(np.int64)  # (B, T+1)
        unscored = (positions[:, 1:] > n) | ((columns[1:] <= warmup) & (starts > 0))
        state = reader.read(batch[:, :-1], np.where(unscored, IGNORED, batch[:, 1:]), state)
    if rows == 1:
        return "one pass, the state carried through the whole text"
    return f"{rows} rows, each after {warmup} characters of the row before"


def _read_sliding(reader: _Reader, ids: AnyIds, context: int) -> str:
    """Read overlapping windows by the rule of windows.py. Each window scores the characters that
    are new in it."""
    shapes = groupby(windows(len(ids) - 1, context), lambda it: (it.stop - it.start, it.skip))
    for (length, skip), group in shapes:
        reader.read_windows(ids, np.array([window.start for window in group]), length, skip)
    stride = stride_of(context)
    return (
        f"windows of {context} characters, {stride} apart, {context - stride} of them for context"
    )


def _read_random(reader: _Reader, ids: AnyIds, config: EvalConfig, seed: int) -> str:
    """Read random windows, each from a fresh state, and score all characters of each."""
    length = min(config.window, reader.model.context or config.window, len(ids) - 1)
    starts = generator(seed, "windows").integers(0, len(ids) - length, config.n_windows)
    reader.read_windows(ids, starts, length)
    return f"{len(starts)} random windows of {length} characters, fresh state, seed {seed}"


def _read_documents(reader: _Reader, ids: AnyIds) -> str:
    """Read each document from a fresh state, and score all its characters and its line end."""
    if not isinstance(ids, TextIds) or ids.starts is None:
        raise DataError(
            "eval.protocol items needs a text with data.documents: lines; choose stream or windows"
        )
    limit = reader.chars_at_once
    starts, lengths = pieces(ids, reader.model.context or limit)
    order = np.argsort(lengths, kind="stable")  # similar lengths share a batch, for little padding
    first = 0
    while first < len(order):
        rows = order[first : first + _count_rows(lengths[order[first : first + limit]], limit)]
        first += len(rows)
        if not reader.is_next():
            continue
        positions = starts[rows, None] - 1 + np.arange(lengths[rows[-1]] + 1)  # (B, T+1)
        batch = ids[positions % len(ids)].astype(np.int64)
        is_padding = np.arange(lengths[rows[-1]]) >= lengths[rows, None]  # (B, T)
        reader.read(batch[:, :-1], np.where(is_padding, IGNORED, batch[:, 1:]))
    return f"{len(ids.starts) - 1:,} documents, each from a fresh state"


def _count_rows(lengths: NDArray[np.int64], limit: int) -> int:
    """The number of documents of these sorted lengths that fit a batch; at least one."""
    sizes = lengths * np.arange(1, len(lengths) + 1)
    return max(1, int(np.searchsorted(sizes, limit, "right")))
