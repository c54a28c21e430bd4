"""What to sample, and one text while it is sampled: its end, and which characters are final."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

from charlm.config import SampleConfig
from charlm.data.vocab import Decoder, Vocab
from charlm.sampling.filters import PENALTY_WINDOW


class Chunk(NamedTuple):
    """A piece of sampled text: usually one character, sometimes none or several.

    Attributes:
        text: the characters.
        units: the number of ids that were sampled for it: characters, or bytes.
        nats: -ln of its probability under the model without any filter; 0 if that was not
            requested.
    """

    text: str
    units: int = 1
    nats: float = 0.0


@dataclass(frozen=True)
class SampleSpec:
    """What to sample.

    Attributes:
        sample: how to draw a character. Its `length` and `prompt` are not used.
        length: characters, or bytes, of each text; None for no limit.
        stop: a text ends before this string would occur in it; None for no such string.
        scored: whether to compute the nats of each character.
        slide: see charlm.sampling.engine.Reader.
        max_delay_s: seconds for which characters are collected into one chunk.
    """

    sample: SampleConfig
    length: int | None
    stop: str | None = None
    scored: bool = False
    slide: bool = False
    max_delay_s: float = 0.02


class Text:
    """One text while it is sampled. It holds back what is not final yet.

    Attributes:
        tail: the last ids that were sampled, at most PENALTY_WINDOW.
        ended: whether the text is complete.
        one_at_a_time: whether `add` takes one id at a time only, because any id may end the text
            or complete a character of several bytes.
    """

    def __init__(self, vocab: Vocab, spec: SampleSpec) -> None:
        self._spec, self._decoder = spec, Decoder(vocab)
        self._held: deque[Chunk] = deque()  # possibly the beginning of the stop string
        self._partial = Chunk("", 0)  # the cost of the bytes of an incomplete character
        self._sampled = 0
        self.one_at_a_time = vocab.unit == "byte" or spec.stop is not None
        self.tail: deque[int] = deque(maxlen=PENALTY_WINDOW)
        self.ended = spec.length == 0

    @property
    def remaining(self) -> float:
        """The number of ids until the text has its full length; infinite if it has no limit."""
        return math.inf if self._spec.length is None else self._spec.length - self._sampled

    def add(self, ids: list[int], nats: list[float] | None) -> Iterable[Chunk]:
        """Add sampled ids.

        Args:
            ids: one or more ids; exactly one with `one_at_a_time`.
            nats: the cost of each id, or None if they are not scored.

        Returns:
            The chunks that are now final. Iterate over them before the next call: `ended` is up to
            date only after that.
        """
        self._sampled += len(ids)
        self.tail.extend(ids)
        self.ended = self.remaining == 0
        if self.one_at_a_time:
            return self._add_one(ids[0], nats[0] if nats else 0.0)
        if nats:
            return map(Chunk, map(self._decoder.add, ids), repeat(1), nats)
        return (Chunk("".join(map(self._decoder.add, ids)), len(ids)),)

    def rest(self) -> Iterator[Chunk]:
        """The chunks that were held back, at the end of the text."""
        yield from self._decoded(self._decoder.rest(), 0, 0.0)
        yield from self._release(len(self._held))

    def _add_one(self, id_: int, nats: float) -> Iterator[Chunk]:
        yield from self._decoded(self._decoder.add(id_), 1, nats)
        if self.ended:
            yield from self.rest()

    def _decoded(self, text: str, units: int, nats: float) -> Iterator[Chunk]:
        """The chunks that are final after the decoder returned these characters, or none."""
        partial = Chunk("", self._partial.units + units, self._partial.nats + nats)
        self._partial = Chunk("", 0) if text else partial
        for char in text:
            chunk, partial = partial._replace(text=char), Chunk("", 0)
            if self._spec.stop is None:
                yield chunk
            else:
                self._held.append(chunk)
                yield from self._final(self._spec.stop)

    def _final(self, stop: str) -> Iterator[Chunk]:
        held = "".join(chunk.text for chunk in self._held)
        if held.endswith(stop):
            yield from self._release(len(held) - len(stop))
            self._held.clear()
            self.ended = True
        else:
            yield from self._release(len(held) - _overlap(held, stop))

    def _release(self, count: int) -> Iterator[Chunk]:
        for _ in range(count):
            yield self._held.popleft()


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of `text` that is a prefix of `stop`."""
    return next(n for n in range(min(len(text), len(stop)), -1, -1) if text.endswith(stop[:n]))
