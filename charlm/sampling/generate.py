"""Writing text, one character at a time, one text or many side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config import SampleConfig
from charlm.data.vocab import Ids, Vocab
from charlm.errors import BrokenModelError
from charlm.randomness import generator
from charlm.sampling import filters
from charlm.sampling.engine import Engine, Reader
from charlm.sampling.text import Chunk, SampleSpec, Text

PATIENCE = 0.02  # seconds that characters may wait to be handed out together


class Randomness:
    """For every character a number from [0, 1) for each of B texts, from a generator of its own."""

    def __init__(self, generators: Iterable[np.random.Generator]) -> None:
        self._generators = list(generators)
        self._numbers = np.empty((0, len(self._generators)))
        self._used = 0

    def next(self) -> filters.Floats:
        """(B,)"""
        if self._used == len(self._numbers):  # many at once are had faster, and are the same
            self._numbers = np.stack([it.random(256) for it in self._generators], axis=1)
            self._used = 0
        self._used += 1
        return np.asarray(self._numbers[self._used - 1])

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts."""
        self._generators = [self._generators[text] for text in texts]
        self._numbers = self._numbers[:, texts]


def generate(
    engine: Engine, vocab: Vocab, prompt: Ids, config: SampleConfig, seed: int, number: int = 0
) -> Iterator[str]:
    """`config.length` characters (or bytes) after `prompt` (ids), one or several at a time.

    The same seed and number give the same text.
    """
    spec = SampleSpec(config, config.length)
    for _, piece in sample_texts(engine, vocab, prompt, spec, seed, [number]):
        if piece is not None:
            yield piece.text


def sample_texts(
    engine: Engine, vocab: Vocab, prompt: Ids, spec: SampleSpec, seed: int, numbers: Sequence[int]
) -> Iterator[tuple[int, Chunk | None]]:
    """Write texts side by side, all after the same prompt (ids).

    A text depends on the seed and its number, and not on what is written beside it, but for the
    last bits: for another B, sums may be taken in another order, or with 16 bits of each number
    (see kernels/product.h). Rarely, a number drawn falls between two such results.

    Yields:
        The number of a text and what was added to it, or None at its end.
    """
    texts = [Text(vocab, spec) for _ in numbers]
    randomness = Randomness(generator(seed, "text", number) for number in numbers)
    number_of = dict(zip(texts, numbers, strict=True))
    reader, start = Reader(engine, spec.slide), beginning(vocab, prompt)[None]  # (1, T)
    if start.shape[1] > 1:
        reader.read(start[:, :-1])
    reader.select([0] * len(texts))
    rest = start[:, -1:].repeat(len(texts), axis=0)  # (B, 1)
    for text, piece in continue_texts(reader, rest, texts, randomness, spec, start, together=True):
        yield number_of[text], piece


def beginning(vocab: Vocab, prompt: Ids) -> Ids:
    """What a text starts with: the prompt, or where that is empty a line end, or the vocabulary's
    first character where it has no line end.

    Raises:
        ValueError: an id is not in the vocabulary.
    """
    if len(prompt):
        if prompt.min() < 0 or prompt.max() >= len(vocab):
            raise ValueError(f"an id that is not in the vocabulary of {len(vocab)}")
        return prompt
    return vocab.encode("\n" if "\n" in vocab.chars else vocab.chars[0])


def continue_texts(
    reader: Reader,
    ids: Ids,
    texts: Sequence[Text],
    randomness: Randomness,
    spec: SampleSpec,
    before: Ids,
    together: bool = False,
) -> Iterator[tuple[Text, Chunk | None]]:
    """Read ids (B, T), then write until every text has ended. What a text ends with is not read.

    Args:
        before: ids (B or 1, N) of the texts so far, `ids` among them, for the repetition penalty.
        together: after the first, several characters of a text may come as one, since to hand them
            out costs more than to draw them.

    Yields:
        A text and what was added to it, or None at its end.
    """
    most: float = 1
    recent = np.broadcast_to(before, (len(texts), before.shape[1]))
    yield from ((text, None) for text in texts if text.ended)
    while rows := [row for row, text in enumerate(texts) if not text.ended]:
        if len(rows) < len(texts):
            texts, ids, recent = [texts[row] for row in rows], ids[rows], recent[rows]
            reader.select(rows)
            randomness.select(rows)
        steps, costs, recent = _some_steps(reader, ids, randomness, spec, recent, most)
        ids = steps[-1][:, None]
        for text, its, their in zip(texts, _by_text(steps), _by_text(costs), strict=False):
            for piece in text.add(its, their):
                yield text, piece
            if text.ended:
                yield text, None
        if together and not texts[0].by_one:
            most = texts[0].left  # of each, since none of them ends by itself


def _some_steps(
    reader: Reader, ids: Ids, randomness: Randomness, spec: SampleSpec, recent: Ids, most: float
) -> tuple[list[Ids], list[filters.Floats], Ids]:
    """Read ids (B, T) and write so many characters, or fewer if that takes long.

    Returns:
        Of each character its ids (B,), of each that was scored its costs (B,), what is now recent.
    """
    until = time.perf_counter() + PATIENCE
    steps: list[Ids] = []
    costs: list[filters.Floats] = []
    while True:
        logits = reader.read(ids).astype(np.float64)  # (B, V)
        drawn = choose(logits, spec.sample, randomness.next(), recent)  # (B,)
        steps.append(drawn)
        if spec.scored:
            costs.append(nats(logits, drawn))
        ids = drawn[:, None]
        if spec.sample.repetition_penalty != 1:
            recent = np.concatenate([recent[:, 1 - filters.PENALISED :], ids], axis=1)
        if len(steps) == most or time.perf_counter() >= until:
            return steps, costs, recent


def _by_text(steps: list[NDArray[Any]]) -> Iterable[Any]:
    """Of each text the list of what each step (B,) gave it; None if there was none."""
    if not steps:
        return repeat(None)
    block = steps[0][:, None] if len(steps) == 1 else np.stack(steps, axis=1)
    return block.tolist()  # type: ignore[no-any-return]


def choose(
    logits: filters.Floats, config: SampleConfig, uniform: filters.Floats, recent: Ids | None = None
) -> NDArray[np.intp]:
    """Draw the next character (B,) of each text from logits (B, V) by the filters of `config`, with
    a number from [0, 1) for each.

    Raises:
        BrokenModelError: a logit is not finite.
    """
    if not math.isfinite(np.add.reduce(logits, axis=None)):  # one that is not makes the sum so
        raise BrokenModelError(
            "the model's output is not finite: its weights are broken; take another checkpoint"
        )
    return filters.draw(filters.distribution(logits, config, recent), uniform)


def nats(logits: filters.Floats, ids: NDArray[np.intp]) -> filters.Floats:
    """-ln softmax(logits)_id for each text: logits (B, V), ids (B,)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, ids[:, None], axis=-1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=-1)) - chosen)


def in_order(
    numbers: Sequence[int], written: Iterable[tuple[int, Chunk | None]]
) -> Iterator[tuple[int, Chunk | None]]:
    """What `write` yields, text after text: the first as it comes, the others held until then."""
    held: dict[int, list[Chunk | None]] = {number: [] for number in numbers}
    left = list(numbers)
    for number, piece in written:
        held[number].append(piece)
        while left and (pieces := held[left[0]]):
            yield from ((left[0], piece) for piece in pieces)
            if pieces[-1] is not None:
                pieces.clear()
                break
            del held[left.pop(0)]


class Conversation:
    """One text, written by a person and a network in turns."""

    def __init__(self, engine: Engine, vocab: Vocab, seed: int) -> None:
        self._vocab, self._reader = vocab, Reader(engine)
        self._before = self._unread = np.empty(0, np.intp)  # the last ids; those not read yet
        self._text: Text | None = None  # what was written last
        self.draw_by(seed)

    def draw_by(self, seed: int) -> None:
        """From here on, draw by this seed."""
        self._randomness = Randomness([generator(seed, "text", 0)])

    def write(self, ids: Ids, spec: SampleSpec) -> Iterator[Chunk]:
        """Go on with the text after ids of the person's; may be broken off between two characters.

        Raises:
            BrokenModelError: a logit is not finite.
        """
        written = np.array(self._text.tail if self._text else (), np.intp)
        if len(written):
            self._unread = written[-1:]
        self._unread = np.concatenate([self._unread, ids]).astype(np.intp)
        if not len(self._before):
            self._unread = beginning(self._vocab, self._unread).astype(np.intp)
            ids = self._unread
        self._before = np.concatenate([self._before, written, ids])[-filters.PENALISED :]
        self._text = Text(self._vocab, spec)
        pieces = continue_texts(
            self._reader,
            self._unread[None],
            [self._text],
            self._randomness,
            spec,
            self._before[None],
        )
        yield from (piece for _, piece in pieces if piece is not None)
