"""Evaluation: how many nats a character a model needs for a text. Deterministic, in
float32 (TF32 on a GPU that has it).

A text of N characters has N - 1 to score: its first has nothing before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from charlm.config import EvalConfig
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.models import CharModel, State
from charlm.models.base import evaluating, sliding
from charlm.randomness import generator
from charlm.training.loss import summed_nll
from charlm.units import bits

CHARS_AT_ONCE = 8192  # bounds the memory for logits


class InterruptedEvaluationError(Exception):
    """Evaluation was asked to stop before its end."""


@dataclass(frozen=True)
class Score:
    """The summed negative log-likelihood (nats) of so many characters, and how it was taken."""

    nats: float
    chars: int
    protocol: str
    description: str

    @property
    def nats_per_char(self) -> float:
        return self.nats / self.chars

    @property
    def bits_per_char(self) -> float:
        return bits(self.nats_per_char)

    @property
    def perplexity(self) -> float:
        """Per character: exp of the nats."""
        try:
            return math.exp(self.nats_per_char)
        except OverflowError:
            return math.inf


def evaluate(
    model: CharModel,
    ids: Ids,
    config: EvalConfig,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Score:
    """Score the text `ids` (N,) by the protocol of `config`.

    `seed` fixes the places of the windows. Nothing is drawn from, or left in, the model or the
    global generator.

    Raises:
        DataError: the text has fewer than two characters.
        InterruptedEvaluationError: `should_stop` said so.
    """
    if len(ids) < 2:
        raise DataError(f"evaluation needs a text of 2 characters or more, this has {len(ids)}")
    reader = _Reader(model, should_stop)
    with evaluating(model), torch.inference_mode():
        if config.protocol == "windows":
            return _score_windows(reader, ids, config, seed)
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
        self.chars += y[:, skip:].size
        return state

    def _tensor(self, ids: Ids) -> Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(self._device)

    def score(self, protocol: str, description: str) -> Score:
        return Score(self.nats, self.chars, protocol, description)


def _score_stream(reader: _Reader, ids: Ids) -> Score:
    """One pass from the first character to the last, the state carried all the way."""
    state: State | None = None
    for start in range(0, len(ids) - 1, CHARS_AT_ONCE):
        chunk = ids[start : start + CHARS_AT_ONCE + 1][None]  # (1, T+1)
        state = reader.read(chunk[:, :-1], chunk[:, 1:], state)
    return reader.score("stream", "one pass, the state carried through the whole text")


def _score_sliding(reader: _Reader, ids: Ids, context: int) -> Score:
    """Windows of `context` characters, each keeping the last half of the one before.

    The first scores all its characters, the others those the one before did not reach. It is the
    same rule by which sampling goes on past the context, so this is the loss of what it writes.
    """
    kept, stride = sliding(context)
    n = len(ids) - 1  # inputs
    first = ids[: context + 1][None]
    reader.read(first[:, :-1], first[:, 1:])
    starts = np.arange(stride, n - kept, stride)  # each has a character to score
    full = starts[starts + context <= n]
    rows = max(1, CHARS_AT_ONCE // context)
    for i in range(0, len(full), rows):
        windows = ids[full[i : i + rows, None] + np.arange(context + 1)]  # (B, context+1)
        reader.read(windows[:, :-1], windows[:, 1:], skip=kept)
    for start in starts[len(full) :]:
        last = ids[start:][None]
        reader.read(last[:, :-1], last[:, 1:], skip=kept)
    return reader.score(
        "stream", f"windows of {context} characters, {stride} apart, {kept} of them for context"
    )


def _score_windows(reader: _Reader, ids: Ids, config: EvalConfig, seed: int) -> Score:
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
