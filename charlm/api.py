"""A trained model in a program of one's own.

    from charlm import load

    model = load("checkpoints/shakespeare-lstm")
    text = model.sample("ROMEO:", length=200, temperature=0.8, seed=1)
    for char in model.stream("ROMEO:", length=None):  # without end
        print(char, end="", flush=True)
    print(model.score("To be, or not to be").bits_per_char)

Which engine computes: see charlm.sampling.engines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import find_checkpoint, read_meta
from charlm.config import SampleConfig
from charlm.config.files import updated
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.sampling.engine import Engine, Reader
from charlm.sampling.engines import open_engine
from charlm.sampling.generate import Conversation, beginning, nats, sample_texts
from charlm.sampling.novelty import Novelty, compare
from charlm.sampling.text import Chunk, SampleSpec
from charlm.units import Likelihood

if TYPE_CHECKING:
    from charlm.data.corpus import TextIds


class Settings(TypedDict, total=False):
    """How to draw; what is not given, or None, is as the model's config has it."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None


class Model:
    """A trained model, ready to write.

    Attributes:
        engine: native, numpy or torch.
    """

    def __init__(self, path: Path, meta: Meta, engine: str, network: Engine) -> None:
        self.path, self.meta, self.vocab = path, meta, meta.vocabulary
        self.engine, self._engine = engine, network

    def sample(
        self,
        prompt: str = "",
        *,
        length: int | None = 200,
        stop: str | None = None,
        seed: int | None = None,
        **settings: Unpack[Settings],
    ) -> str:
        """What `stream` gives, in one piece."""
        pieces = self.stream(prompt, length=length, stop=stop, seed=seed, **settings)
        return "".join(pieces)

    def stream(
        self,
        prompt: str = "",
        *,
        length: int | None = 200,
        stop: str | None = None,
        seed: int | None = None,
        **settings: Unpack[Settings],
    ) -> Iterator[str]:
        """What the model writes after the prompt, character by character, as it is written.

        Args:
            prompt: an empty one starts as after a line end.
            length: characters (or bytes), or None for no end.
            stop: end before this text is written.
            seed: the same gives the same text; None a new one every time.

        Raises:
            ConfigError: a setting is out of range.
            DataError: the prompt has a character that the model does not know.
            BrokenModelError: the weights are broken.
        """
        spec = SampleSpec(self.settings(**settings), length, stop)
        written = self.sample_texts(self.vocab.encode(prompt), spec, new_seed(seed), [0])
        return (char for _, piece in written if piece is not None for char in piece.text)

    def score(self, text: str, prompt: str = "") -> Likelihood:
        """How likely the model finds a text after a prompt, by the rule it writes by.

        Raises:
            DataError: a character is not known to the model.
            BrokenModelError: the weights are broken.
        """
        ids, reader = self.vocab.encode(text), Reader(self._engine)
        logits = reader.read(beginning(self.vocab, self.vocab.encode(prompt))[None])
        total = 0.0
        for i in range(len(ids)):
            total += float(nats(logits.astype(np.float64), ids[i : i + 1].astype(np.intp))[0])
            if i + 1 < len(ids):
                logits = reader.read(ids[None, i : i + 1])
        return Likelihood(total, len(ids))

    def novelty(self, samples: Sequence[str]) -> Novelty:
        """What samples have from the training text, where that can be found.

        Raises:
            DataError: it cannot be found, or is another one now.
        """
        of_documents = self.meta.config.data.documents == "lines"
        return compare(samples, self.vocab, self._training_text(), of_documents)

    def settings(self, **settings: Unpack[Settings]) -> SampleConfig:
        """The model's own settings with some changed.

        Raises:
            ConfigError: one is out of range.
        """
        return updated(self.meta.config.sample, **settings)

    def sample_texts(
        self, prompt: Ids, spec: SampleSpec, seed: int, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Chunk | None]]:
        """As charlm.sampling.generate.sample_texts."""
        return sample_texts(self._engine, self.vocab, prompt, spec, seed, numbers)

    def converse(self, seed: int) -> Conversation:
        """A text written in turns."""
        return Conversation(self._engine, self.vocab, seed)

    def _training_text(self) -> TextIds:
        from charlm.data.corpus import open_corpus

        data, expected = self.meta.config.data, self.meta.corpus.sha256
        corpus = open_corpus(data, self.vocab, extend=False, expected=expected)
        if corpus.sha256 != expected:
            raise DataError(f"{corpus.source}: not the text this model was trained on")
        return corpus.split("train")


def load(checkpoint: str | Path | None, engine: str, device: str) -> Model:
    """As charlm.load."""
    path = find_checkpoint(None if checkpoint is None else Path(checkpoint))
    return open_model(path, read_meta(path), engine, device, 1)


def open_model(
    path: Path, meta: Meta, engine: str, device: str, texts: int, bf16: bool = False
) -> Model:
    """The model of a checkpoint, to sample N = `texts` texts side by side; see `open_engine`."""
    return Model(path, meta, *open_engine(path, meta, engine, device, texts, bf16))


def new_seed(seed: int | None) -> int:
    """This seed, or where there is none, one that nobody has seen."""
    return int.from_bytes(os.urandom(4)) if seed is None else seed
