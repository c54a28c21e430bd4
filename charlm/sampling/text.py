"""One text while it is being written: what is asked of it, and what of it is certain."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

from charlm.config import SampleConfig
from charlm.data.vocab import Decoder, Vocab
from charlm.sampling.filters import PENALISED


class Chunk(NamedTuple):
    """A character, or at times none or several, and what it cost.

    Attributes:
        units: how many the model wrote for it: bytes, or characters.
        nats: -ln of its probability by the model, without any filter; 0 where that was not asked.
    """

    text: str
    units: int = 1
    nats: float = 0.0


@dataclass(frozen=True)
class SampleSpec:
    """What is to be written.

    Attributes:
        length: characters, or bytes, of each text; None for no end.
        stop: a text ends before this would stand in it.
        scored: whether to tell what each character cost.
        slide: past a GPT's context, see as much as it holds (see Reader).
    """

    sample: SampleConfig
    length: int | None
    stop: str | None = None
    scored: bool = False
    slide: bool = False


class Text:
    """One text while it is being written: what is not yet out of it.

    Attributes:
        tail: the ids written last.
        by_one: it is to be given its characters one at a time, since any may end it.
    """

    def __init__(self, vocab: Vocab, spec: SampleSpec) -> None:
        self._spec, self._decoder = spec, Decoder(vocab)
        self._held: deque[Chunk] = deque()  # what may be the beginning of the stop text
        self._begun = Chunk("", 0)  # of a character of several bytes
        self._written = 0
        self.by_one = vocab.unit == "byte" or spec.stop is not None
        self.tail: deque[int] = deque(maxlen=PENALISED)
        self.ended = spec.length == 0

    @property
    def left(self) -> float:
        """How many characters it may still be given."""
        return math.inf if self._spec.length is None else self._spec.length - self._written

    def add(self, ids: list[int], costs: list[float] | None) -> Iterable[Chunk]:
        """Write characters, scored or not; what of the text is now certain.

        To be gone through at once.
        """
        self._written += len(ids)
        self.tail.extend(ids)
        self.ended = self.left == 0
        if self.by_one:
            return self._add(ids[0], costs[0] if costs else 0.0)
        if costs:
            return map(Chunk, map(self._decoder.add, ids), repeat(1), costs)
        return (Chunk("".join(map(self._decoder.add, ids)), len(ids)),)

    def _add(self, id_: int, nats: float) -> Iterator[Chunk]:
        yield from self._whole(self._decoder.add(id_), 1, nats)
        if self.ended:
            yield from self.rest()

    def rest(self) -> Iterator[Chunk]:
        """What was held back, the text having come to its end."""
        yield from self._whole(self._decoder.rest(), 0, 0.0)
        yield from self._released(len(self._held))

    def _whole(self, text: str, units: int, nats: float) -> Iterator[Chunk]:
        """Characters that are complete, through the search for the stop text."""
        begun = Chunk("", self._begun.units + units, self._begun.nats + nats)
        self._begun = Chunk("", 0) if text else begun
        for char in text:
            piece, begun = begun._replace(text=char), Chunk("", 0)
            if self._spec.stop is None:
                yield piece
            else:
                self._held.append(piece)
                yield from self._certain(self._spec.stop)

    def _certain(self, stop: str) -> Iterator[Chunk]:
        held = "".join(piece.text for piece in self._held)
        if held.endswith(stop):
            yield from self._released(len(held) - len(stop))
            self._held.clear()
            self.ended = True
        else:
            yield from self._released(len(held) - _overlap(held, stop))

    def _released(self, count: int) -> Iterator[Chunk]:
        for _ in range(count):
            yield self._held.popleft()


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`."""
    return next(n for n in range(min(len(text), len(stop)), -1, -1) if text.endswith(stop[:n]))
