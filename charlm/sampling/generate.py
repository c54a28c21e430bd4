"""Writing text, one character at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from charlm.config import SampleConfig
from charlm.data.vocab import Decoder, Ids, Vocab
from charlm.errors import BrokenModelError
from charlm.models import CharModel
from charlm.models.base import evaluating, sliding
from charlm.randomness import generator
from charlm.sampling import filters


class Writer:
    """A model reading and writing one text.

    Past a GPT's context it goes on by reading the last half of it afresh, so that every character
    follows at least context // 2 others at a constant mean cost. `evaluate` scores by this rule.
    """

    def __init__(self, model: CharModel) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._recent: list[int] = []  # what the state has read, kept for a model with a context
        self._state: tuple[torch.Tensor, ...] | None = None

    def read(self, ids: Ids | list[int]) -> filters.Floats:
        """Read characters (at least one); the logits (V,) of the next."""
        ids = [int(i) for i in ids]
        context = self._model.context
        if context is None:
            return self._advance(ids)
        text = self._recent + ids
        if len(text) > context:
            # as if every window had been read: the last starts at a multiple of the stride
            _, stride = sliding(context)
            overflow = -(-(len(text) - context) // stride)
            self._state = None
            text = ids = text[overflow * stride :]
        self._recent = text
        return self._advance(ids)

    def _advance(self, ids: list[int]) -> filters.Floats:
        with evaluating(self._model), torch.inference_mode():
            tensor = torch.tensor([ids], device=self._device)  # (1, T)
            logits, self._state = self._model(tensor, self._state)
        return np.asarray(logits[0, -1].float().cpu().double())


def generate(
    model: CharModel, vocab: Vocab, prompt: Ids, config: SampleConfig, seed: int, number: int = 0
) -> Iterator[str]:
    """`config.length` characters (or bytes) after `prompt` (ids), as soon as each is whole.

    An empty prompt starts as after a line end, or after the vocabulary's first character where it
    has no line end. The same seed and number give the same text.
    """
    randomness = generator(seed, "text", number)
    writer = Writer(model)
    start = prompt if len(prompt) else vocab.encode("\n" if "\n" in vocab.chars else vocab.chars[0])
    logits, decoder = writer.read(start), Decoder(vocab)
    for i in range(config.length):
        choice = choose(logits, config, randomness)
        yield decoder.add(choice)
        if i + 1 < config.length:
            logits = writer.read([choice])
    yield decoder.rest()


def choose(logits: filters.Floats, config: SampleConfig, randomness: np.random.Generator) -> int:
    """Draw the next character's id from logits (V,) by the filters of `config`.

    Raises:
        BrokenModelError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise BrokenModelError(
            "the model's output is not finite: its weights are broken; take another checkpoint"
        )
    probs = filters.probabilities(logits, config.temperature)
    if config.top_k is not None:
        probs = filters.keep_top_k(probs, config.top_k)
    if config.top_p is not None:
        probs = filters.keep_top_p(probs, config.top_p)
    return filters.draw(probs, randomness.random())


def until(characters: Iterator[str], stop: str) -> Iterator[str]:
    """The characters up to where `stop` begins; what may be its beginning is held back."""
    held = ""
    for character in characters:
        held += character
        if held.endswith(stop):
            yield from held[: -len(stop)]
            return
        sure = len(held) - _overlap(held, stop)
        yield from held[:sure]
        held = held[sure:]
    yield from held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`."""
    return next(n for n in range(min(len(text), len(stop)), -1, -1) if text.endswith(stop[:n]))
