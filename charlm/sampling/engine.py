"""What writing knows of a network, and reading past the end of a context."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.evaluation.windows import stride_of, window_start


class Engine(Protocol):
    """A network that reads B texts side by side and remembers them, from their beginning.

    Attributes:
        vocab_size: V.
        context: the most characters it can look at, or None where its memory has no end.
    """

    vocab_size: int
    context: int | None

    def fresh(self) -> Engine:
        """Another of the same weights, at the beginning of a text."""

    def restart(self) -> None:
        """Forget what was read."""

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts read so far, some perhaps many times."""

    def read(self, ids: Ids) -> NDArray[np.floating]:
        """Read T characters of each text, ids (B, T); the logits (B, V) of the next."""


class Reader:
    """Reads texts of any length by an engine, from a fresh start.

    Past a GPT's context it goes on by reading the last half of it afresh, so that every character
    follows at least context // 2 others at a constant mean cost. `evaluate` scores by this rule.
    With `slide` each character there follows as many as the context holds, which costs reading
    all of them for each.
    """

    def __init__(self, engine: Engine, slide: bool = False) -> None:
        self._engine = engine.fresh()
        self._context = engine.context
        self._stride = 1 if slide or self._context is None else stride_of(self._context)
        self._window: Ids | None = None  # (B, n), what an engine with a context has read

    def read(self, ids: Ids) -> NDArray[np.floating]:
        """Read T >= 1 characters of each text, ids (B, T); the logits (B, V) of the next."""
        if self._context is None:
            return self._engine.read(ids)
        window = ids if self._window is None else np.concatenate([self._window, ids], axis=1)
        if start := window_start(window.shape[1], self._context, self._stride):
            window = ids = window[:, start:]
            self._engine.restart()
        self._window = window
        return self._engine.read(ids)

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts read so far, some perhaps many times."""
        if self._window is not None:
            self._window = self._window[texts]
        self._engine.select(texts)
