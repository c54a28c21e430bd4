"""Evaluation: how many nats a character a model needs for a text. Deterministic, in
float32 (TF32 on a GPU that has it).

A text of N characters has N - 1 to score: its first has nothing before it.
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
from charlm.models.base import evaluating
from charlm.randomness import generator
from charlm.units import Likelihood

CHARS_AT_ONCE = 8192  # bounds the memory for logits


class InterruptedEvaluationError(Exception):
    """Evaluation was asked to stop before its end."""


@dataclass(frozen=True)
class Score(Likelihood):
    """A likelihood, and how it was taken."""

    protocol: str
    description: str


def evaluate(
    model: CharModel,
    ids: AnyIds,
    config: EvalConfig,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Score:
    """Score the text `ids` (N,) by the protocol of `config`.

    `seed` fixes the places of the windows. Nothing is drawn from, or left in, the model or the
    global generator.

    Raises:
        DataError: the text has fewer than two characters, or is no list and to be scored as one.
        InterruptedEvaluationError: `should_stop` said so.
    """
    if len(ids) < 2:
        raise DataError(f"evaluation needs a text of 2 characters or more, this has {len(ids)}")
    reader = _Reader(model, should_stop)
    with evaluating(model), torch.inference_mode():
        if config.protocol == "windows":
            return _score_windows(reader, ids, config, seed)
        if config.protocol == "items":
            return _score_items(reader, ids)
        if model.context is None:
            return _score_stream(reader, ids)
        return _score_sliding(reader, ids, model.context)


class _Reader:
    """Sums the loss of batches, float64 on the host."""

    def __init__(self, model: CharModel, should_stop: Callable[[], bool]) -> None:
        self.model, self._should_stop = model, should_stop
        self._device = next(model.parameters()).device
        self.nats, self.chars = 0.0, 0

    def read(self, x: Ids, y: Ids, state: State | None = None, skip: int = 0) -> State:
        """Read inputs x (B, T); score targets y (B, T) but the first `skip` of each row."""
        if self._should_stop():
            raise InterruptedEvaluationError
        logits, state = self.model(self._tensor(x), state)
        self.nats += float(summed_nll(logits[:, skip:], self._tensor(y[:, skip:])))
        self.chars += int((y[:, skip:] != IGNORED).sum())
        return state

    def _tensor(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(self._device)

    def score(self, protocol: str, description: str) -> Score:
        return Score(self.nats, self.chars, protocol, description)


def _score_stream(reader: _Reader, ids: AnyIds) -> Score:
    """One pass from the first character to the last, the state carried all the way."""
    state: State | None = None
    for start in range(0, len(ids) - 1, CHARS_AT_ONCE):
        chunk = ids[start : start + CHARS_AT_ONCE + 1][None]  # (1, T+1)
        state = reader.read(chunk[:, :-1], chunk[:, 1:], state)
    return reader.score("stream", "one pass, the state carried through the whole text")


def _score_sliding(reader: _Reader, ids: AnyIds, context: int) -> Score:
    """Overlapping windows by the rule of windows.py; each scores the characters that the window
    before did not."""
    shapes = groupby(windows(len(ids) - 1, context), lambda it: (it.stop - it.start, it.skip))
    for (length, skip), alike in shapes:
        starts = np.array([window.start for window in alike])
        rows = max(1, CHARS_AT_ONCE // context)
        for i in range(0, len(starts), rows):
            text = ids[starts[i : i + rows, None] + np.arange(length + 1)]  # (B, T+1)
            reader.read(text[:, :-1], text[:, 1:], skip=skip)
    stride = stride_of(context)
    return reader.score(
        "stream",
        f"windows of {context} characters, {stride} apart, {context - stride} of them for context",
    )


def _score_windows(reader: _Reader, ids: AnyIds, config: EvalConfig, seed: int) -> Score:
    """Random windows, each from a fresh state, all of a window's characters scored alike."""
    length = min(config.window, reader.model.context or config.window, len(ids) - 1)
    starts = generator(seed, "windows").integers(0, len(ids) - length, config.n_windows)
    rows = max(1, CHARS_AT_ONCE // length)
    for i in range(0, len(starts), rows):
        windows = ids[starts[i : i + rows, None] + np.arange(length + 1)]  # (B, length+1)
        reader.read(windows[:, :-1], windows[:, 1:])
    return reader.score(
        "windows", f"{len(starts)} random windows of {length} characters, fresh state, seed {seed}"
    )


def _score_items(reader: _Reader, ids: AnyIds) -> Score:
    """Each item of a list from a fresh state: every character of it and its end."""
    if not isinstance(ids, TextIds) or ids.starts is None:
        raise DataError("eval.protocol items scores the items of a list, and this text is none")
    starts, lengths = pieces(ids, reader.model.context or CHARS_AT_ONCE)
    order = np.argsort(lengths, kind="stable")  # like with like, for little filling
    first = 0
    while first < len(order):
        rows = order[first : first + _rows(lengths[order[first : first + CHARS_AT_ONCE]])]
        places = starts[rows, None] - 1 + np.arange(lengths[rows[-1]] + 1)  # (B, T+1)
        text = ids[places % len(ids)].astype(np.int64)
        beyond = np.arange(lengths[rows[-1]]) >= lengths[rows, None]  # (B, T)
        reader.read(text[:, :-1], np.where(beyond, IGNORED, text[:, 1:]))
        first += len(rows)
    return reader.score("items", f"{len(ids.starts) - 1:,} items, each from a fresh state")


def _rows(lengths: NDArray[np.int64]) -> int:
    """How many of these, sorted, make a batch of CHARS_AT_ONCE characters; at least one."""
    sizes = lengths * np.arange(1, len(lengths) + 1)
    return max(1, int(np.searchsorted(sizes, CHARS_AT_ONCE, "right")))
