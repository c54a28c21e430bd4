"""The interface of an engine, and reading a text that is longer than the context."""

from __future__ import annotations

import math
from copy import copy
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.errors import BrokenModelError
from charlm.evaluation.windows import stride_of, window_start


class Engine(Protocol):
    """A network with the state of B texts that it reads side by side.

    A class that inherits from this one implements `restart`, `select` and `read`.

    Attributes:
        vocab_size: V.
        context: the most characters that the network can look at; None for a recurrent network.
    """

    vocab_size: int
    context: int | None

    def fresh(self) -> Self:
        """A new engine with the same weights and no state."""
        other = copy(self)
        other.restart()
        return other

    def restart(self) -> None:
        """Clear the state."""

    def select(self, texts: list[int]) -> None:
        """Keep the state of these texts only, in this order. An index may occur several times.

        Args:
            texts: indices into the B texts; their number is the new B.
        """

    def read(self, ids: Ids) -> NDArray[np.floating]:
        """Read the next T characters of each text.

        Args:
            ids: (B, T), T >= 1. For a GPT, at most `context` characters since the last restart.

        Returns:
            The logits of the character that follows, (B, V).
        """


Inner = TypeVar("Inner", bound=Engine)


class EngineOfNetwork(Engine, Generic[Inner]):
    """An engine whose state is in another one."""

    def __init__(self, network: Inner) -> None:
        self._network = network
        self.vocab_size, self.context = network.vocab_size, network.context

    def fresh(self) -> Self:
        other = copy(self)
        other._network = self._network.fresh()
        return other

    def restart(self) -> None:
        self._network.restart()

    def select(self, texts: list[int]) -> None:
        self._network.select(texts)


class Reader:
    """Reads texts of any length with an engine, from a fresh state.

    Past the context of a GPT it follows the rule of charlm.evaluation.windows: when the context is
    full, it clears the state and reads the last half of the context again. Each character then has
    at least context // 2 characters before it, at a constant mean cost.

    Args:
        engine: its weights are used; its state is neither used nor changed.
        slide: give every character past the context as many characters before it as the context
            holds. This reads the whole context again for each character.

    Attributes:
        slide: may be changed between two reads.
    """

    def __init__(self, engine: Engine, slide: bool = False) -> None:
        self._engine, self._context, self.slide = engine.fresh(), engine.context, slide
        self._window: Ids | None = None  # (B, n), the ids in the state of a GPT

    def read(self, ids: Ids) -> NDArray[np.floating]:
        """Read the next T >= 1 characters of each text, ids (B, T).

        Returns:
            The logits of the character that follows, (B, V).

        Raises:
            BrokenModelError: a logit is not finite.
        """
        if self._context is not None:
            window = ids if self._window is None else np.concatenate([self._window, ids], axis=1)
            stride = 1 if self.slide else stride_of(self._context)
            if start := window_start(window.shape[1], self._context, stride):
                window = ids = window[:, start:]
                self._engine.restart()
            self._window = window
        with np.errstate(all="ignore"):  # the check below reports what NumPy would warn about
            logits = self._engine.read(ids)
            total = np.add.reduce(logits, axis=None, dtype=np.float64)
        if not math.isfinite(total):  # one NaN or inf makes the sum NaN or inf
            raise BrokenModelError
        return logits

    def select(self, texts: list[int]) -> None:
        """Keep these texts only, in this order, as Engine.select does."""
        if self._window is not None:
            self._window = self._window[texts]
        self._engine.select(texts)
