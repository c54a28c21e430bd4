"""The sampling loop: one character at a time, for one text or for several side by side."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config import SampleConfig
from charlm.data.vocab import Ids, Vocab
from charlm.randomness import generator
from charlm.sampling import filters
from charlm.sampling.engine import Engine, Reader
from charlm.sampling.text import Chunk, SampleSpec, Text


class Randomness:
    """Uniform random numbers in [0, 1) for B texts. Each text has its own generator."""

    def __init__(self, generators: Iterable[np.random.Generator]) -> None:
        self._generators = list(generators)
        self._numbers = np.empty((0, len(self._generators)))
        self._used = 0

    def next(self) -> filters.Floats:
        """One number for each text, (B,)."""
        if self._used == len(self._numbers):  # one call for 256 is faster than 256 calls
            self._numbers = np.stack([it.random(256) for it in self._generators], axis=1)
            self._used = 0
        self._used += 1
        return np.asarray(self._numbers[self._used - 1])

    def select(self, texts: list[int]) -> None:
        """Keep these texts only, in this order."""
        self._generators = [self._generators[text] for text in texts]
        self._numbers = self._numbers[:, texts]


def generate(
    engine: Engine, vocab: Vocab, prompt: Ids, config: SampleConfig, seed: int, number: int = 0
) -> Iterator[str]:
    """Sample one text of `config.length` characters (or bytes).

    Args:
        engine: its weights are used; its state is neither used nor changed.
        prompt: ids (T,). For an empty prompt see `beginning`.
        seed, number: the same values give the same text.

    Yields:
        The text after the prompt, in pieces of one or more characters.

    Raises:
        ValueError: an id of the prompt is not in the vocabulary.
        BrokenModelError: a logit is not finite.
    """
    spec = SampleSpec(config, config.length)
    for _, chunk in sample_texts(engine, vocab, prompt, spec, seed, [number]):
        if chunk is not None:
            yield chunk.text


def sample_texts(
    engine: Engine, vocab: Vocab, prompt: Ids, spec: SampleSpec, seed: int, numbers: Sequence[int]
) -> Iterator[tuple[int, Chunk | None]]:
    """Sample B texts side by side, all after the same prompt.

    A text depends on the seed and on its number, and not on the other texts. In rare cases rounding
    changes a character: it depends on B, which may change the order of a sum or, on a CPU with AMX,
    the precision of the products (see kernels/c/linear.h).

    Args:
        engine: its weights are used; its state is neither used nor changed.
        prompt: ids (T,). For an empty prompt see `beginning`.
        numbers: a number for each of the B texts, all different.

    Yields:
        The number of a text and its next chunk, or None at its end.

    Raises:
        ValueError: an id of the prompt is not in the vocabulary.
        BrokenModelError: a logit is not finite.
    """
    texts = [Text(vocab, spec) for _ in numbers]
    randomness = Randomness(generator(seed, "text", number) for number in numbers)
    number_of = dict(zip(texts, numbers, strict=True))
    reader, start = Reader(engine, spec.slide), beginning(vocab, prompt)[None]  # (1, T)
    if start.shape[1] > 1:  # `continue_texts` reads the last id, because it needs the logits
        reader.read(start[:, :-1])
    reader.select([0] * len(texts))  # one copy of the state for each text
    last = start[:, -1:].repeat(len(texts), axis=0)  # (B, 1)
    for text, chunk in continue_texts(reader, last, texts, randomness, spec, start, together=True):
        yield number_of[text], chunk


def beginning(vocab: Vocab, prompt: Ids) -> Ids:
    """The ids that a text starts with: the prompt, or a line end.

    Returns:
        The prompt, (T,). If it is empty, a line end; if the vocabulary has no line end, its first
        character.

    Raises:
        ValueError: an id of the prompt is not in the vocabulary.
    """
    if len(prompt):
        if prompt.min() < 0 or prompt.max() >= len(vocab):
            raise ValueError(f"prompt: an id is not in the vocabulary of {len(vocab)} characters")
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
    """Read ids, then sample until all texts have ended. The last sampled id is not read.

    Args:
        reader: has read the texts before `ids`.
        ids: (B, T), T >= 1.
        before: the texts up to and including `ids`, (B or 1, N), for the repetition penalty.
        together: whether a chunk may have several characters, which is faster. The first chunk of a
            text always has one.

    Yields:
        A text and its next chunk, or None at its end.

    Raises:
        BrokenModelError: a logit is not finite.
    """
    limit: float = 1  # steps; the first character is passed on at once
    recent = np.broadcast_to(before, (len(texts), before.shape[1]))
    yield from ((text, None) for text in texts if text.ended)
    while rows := [row for row, text in enumerate(texts) if not text.ended]:
        if len(rows) < len(texts):
            texts, ids, recent = [texts[row] for row in rows], ids[rows], recent[rows]
            reader.select(rows)
            randomness.select(rows)
        steps, costs, recent = _sample_steps(reader, ids, randomness, spec, recent, limit)
        ids = steps[-1][:, None]
        for text, text_ids, text_nats in zip(texts, _by_text(steps), _by_text(costs), strict=False):
            for chunk in text.add(text_ids, text_nats):
                yield text, chunk
            if text.ended:
                yield text, None
        if together and not texts[0].one_at_a_time:
            limit = texts[0].remaining  # without a stop string all texts end at the same step


def _sample_steps(
    reader: Reader, ids: Ids, randomness: Randomness, spec: SampleSpec, recent: Ids, limit: float
) -> tuple[list[Ids], list[filters.Floats], Ids]:
    """Read ids (B, T), then sample 1 to `limit` characters of each text, within `max_delay_s`.

    Returns:
        For each step the ids, (B,); for each step, if scored, their nats, (B,); and the new
        `recent`, (B, N).
    """
    deadline = time.perf_counter() + spec.max_delay_s
    steps: list[Ids] = []
    costs: list[filters.Floats] = []
    while True:
        logits = reader.read(ids).astype(np.float64)  # (B, V)
        sampled = choose(logits, spec.sample, randomness.next(), recent)  # (B,)
        steps.append(sampled)
        if spec.scored:
            costs.append(nats(logits, sampled))
        ids = sampled[:, None]
        if spec.sample.repetition_penalty != 1:
            recent = np.concatenate([recent[:, 1 - filters.PENALTY_WINDOW :], ids], axis=1)
        if len(steps) == limit or time.perf_counter() >= deadline:
            return steps, costs, recent


def _by_text(steps: list[NDArray[Any]]) -> Iterable[Any]:
    """Turn one array (B,) for each step into one list for each text; without steps, yield None."""
    if not steps:
        return repeat(None)
    array = steps[0][:, None] if len(steps) == 1 else np.stack(steps, axis=1)  # (B, steps)
    return array.tolist()  # type: ignore[no-any-return]


def choose(
    logits: filters.Floats, config: SampleConfig, uniform: filters.Floats, recent: Ids | None = None
) -> NDArray[np.intp]:
    """Draw the next character of each of B texts.

    Args:
        logits: (B, V).
        config: the temperature and the filters.
        uniform: numbers in [0, 1), (B,).
        recent: the ids before, (B, N), for the repetition penalty.

    Returns:
        Ids, (B,).
    """
    return filters.draw(filters.distribution(logits, config, recent), uniform)


def nats(logits: filters.Floats, ids: NDArray[np.intp]) -> filters.Floats:
    """The negative log-likelihood of one character of each text, -ln softmax(logits)[id].

    Args:
        logits: (B, V).
        ids: (B,).

    Returns:
        Nats, (B,).
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, ids[:, None], axis=-1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=-1)) - chosen)


def in_order(
    numbers: Sequence[int], chunks: Iterable[tuple[int, Chunk | None]]
) -> Iterator[tuple[int, Chunk | None]]:
    """Sort the chunks of `sample_texts` by text.

    The chunks of the first text are passed on at once. Those of later texts are held until the
    texts before them have ended.

    Args:
        numbers: the numbers of the texts, in the order of the output.
        chunks: what `sample_texts` yields.

    Yields:
        The number of a text and its next chunk, or None at its end.
    """
    held = {number: deque[Chunk | None]() for number in numbers}
    remaining = deque(numbers)
    for number, new in chunks:
        held[number].append(new)
        while remaining and held[remaining[0]]:
            chunk = held[remaining[0]].popleft()
            yield remaining[0], chunk
            if chunk is None:
                remaining.popleft()


class Conversation:
    """One text that a person and a model continue in turns."""

    def __init__(self, engine: Engine, vocab: Vocab, seed: int) -> None:
        self._vocab, self._reader = vocab, Reader(engine)
        self._before = np.empty(0, np.intp)  # the last ids, for the repetition penalty
        self._unread = np.empty(0, np.intp)  # the ids that the reader has not read yet
        self._text: Text | None = None  # the model's last turn
        self.set_seed(seed)

    def set_seed(self, seed: int) -> None:
        """Draw the next characters with this seed."""
        self._randomness = Randomness([generator(seed, "text", 0)])

    def sample_turn(self, ids: Ids, spec: SampleSpec) -> Iterator[Chunk]:
        """Sample the model's turn. The caller may stop the iteration after any chunk.

        Args:
            ids: the person's turn, (T,); may be empty.

        Yields:
            The chunks of the model's turn.

        Raises:
            ValueError: the conversation starts with an id that is not in the vocabulary.
            BrokenModelError: a logit is not finite.
        """
        sampled = np.array(self._text.tail if self._text else (), np.intp)
        if len(sampled):
            self._unread = sampled[-1:]
        self._unread = np.concatenate([self._unread, ids]).astype(np.intp)
        if not len(self._before):
            self._unread = beginning(self._vocab, self._unread).astype(np.intp)
            ids = self._unread
        self._before = np.concatenate([self._before, sampled, ids])[-filters.PENALTY_WINDOW :]
        self._text, self._reader.slide = Text(self._vocab, spec), spec.slide
        texts, unread, before = [self._text], self._unread[None], self._before[None]
        chunks = continue_texts(self._reader, unread, texts, self._randomness, spec, before)
        yield from (chunk for _, chunk in chunks if chunk is not None)
