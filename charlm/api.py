"""Use a trained model from Python.

    from charlm import load

    model = load("checkpoints/shakespeare-lstm")
    text = model.sample("ROMEO:", length=200, temperature=0.8, seed=1)
    for char in model.stream("ROMEO:", length=None):  # never ends
        print(char, end="", flush=True)
    print(model.score("To be, or not to be").bits_per_char)

charlm.sampling.engines says which engine computes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import Checkpoint, check_vocabulary, find_checkpoint, open_checkpoint
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
    """How characters are drawn. A setting that is missing or None comes from the model's config."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None


class Model:
    """A trained model.

    Threads may use one model at the same time: each text has a state of its own. So may processes
    that were forked after the model was loaded, with the engines native and numpy; PyTorch does not
    support a fork after it has computed with several threads.

    Attributes:
        path: the checkpoint file.
        meta: its metadata: config, vocabulary, training text, progress.
        vocab: its vocabulary.
        engine: native, numpy or torch.
    """

    def __init__(self, path: Path, meta: Meta, engine: str, network: Engine) -> None:
        self.path, self.meta, self.vocab = path, meta, meta.vocabulary
        self.engine, self._network = engine, network

    def sample(
        self,
        prompt: str = "",
        *,
        length: int | None = 200,
        stop: str | None = None,
        seed: int | None = None,
        **settings: Unpack[Settings],
    ) -> str:
        """Sample a text. As `stream`, but returns the whole text at once."""
        return "".join(self.stream(prompt, length=length, stop=stop, seed=seed, **settings))

    def stream(
        self,
        prompt: str = "",
        *,
        length: int | None = 200,
        stop: str | None = None,
        seed: int | None = None,
        **settings: Unpack[Settings],
    ) -> Iterator[str]:
        """Sample a text and return its characters one by one, as soon as they are drawn.

        Args:
            prompt: the text to continue. With an empty prompt, the model starts as after a line
                end.
            length: the number of characters (or bytes); None for no limit.
            stop: the text ends before this string would appear in it.
            seed: the same seed gives the same text; None takes a new seed.

        Returns:
            The characters that follow the prompt.

        Raises:
            ConfigError: a setting is out of range.
            DataError: the prompt has a character that is not in the vocabulary.
            BrokenModelError: the weights are broken.
        """
        spec = SampleSpec(self.settings(**settings), length, stop)
        chunks = self.sample_texts(self.vocab.encode(prompt), spec, new_seed(seed), [0])
        return (char for _, chunk in chunks if chunk is not None for char in chunk.text)

    def score(self, text: str, prompt: str = "") -> Likelihood:
        """The negative log-likelihood of a text that follows a prompt, read as in sampling.

        Raises:
            DataError: a character is not in the vocabulary.
            BrokenModelError: the weights are broken.
        """
        ids, reader = self.vocab.encode(text), Reader(self._network)
        logits = reader.read(beginning(self.vocab, self.vocab.encode(prompt))[None])  # (1, V)
        total = 0.0
        for i in range(len(ids)):
            total += float(nats(logits.astype(np.float64), ids[i : i + 1].astype(np.intp))[0])
            if i + 1 < len(ids):
                logits = reader.read(ids[None, i : i + 1])
        return Likelihood(total, len(ids))

    def novelty(self, samples: Sequence[str]) -> Novelty:
        """Measure how much of the samples is copied from the training text.

        Raises:
            CheckpointError: its vocabulary is not that of the training text.
            DataError: the training text is missing or has changed.
        """
        of_documents = self.meta.config.data.documents == "lines"
        return compare(samples, self.vocab, self._training_text(), of_documents)

    def settings(self, **settings: Unpack[Settings]) -> SampleConfig:
        """The `sample` settings of the model's config, with these settings changed.

        Raises:
            ConfigError: a setting is out of range.
        """
        return updated(self.meta.config.sample, **settings)

    def sample_texts(
        self, prompt: Ids, spec: SampleSpec, seed: int, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Chunk | None]]:
        """Sample several texts; see charlm.sampling.generate.sample_texts."""
        return sample_texts(self._network, self.vocab, prompt, spec, seed, numbers)

    def converse(self, seed: int) -> Conversation:
        """Start a text that the user and the model continue in turns."""
        return Conversation(self._network, self.vocab, seed)

    def _training_text(self) -> TextIds:
        from charlm.data.corpus import open_corpus

        data, expected = self.meta.config.data, self.meta.corpus.sha256
        corpus = open_corpus(data, self.vocab, extend=False, expected=expected, named=())
        if corpus.sha256 != expected:
            raise DataError(f"{corpus.source}: not the text this model was trained on")
        check_vocabulary(self.path, self.meta, corpus.vocab.chars)
        return corpus.split("train")


def load(checkpoint: str | Path | None, engine: str, device: str) -> Model:
    """Load a model to sample one text at a time; see charlm.load."""
    path = find_checkpoint(None if checkpoint is None else Path(checkpoint))
    with open_checkpoint(path) as opened:
        return open_model(opened, engine, device, 1)


def open_model(
    checkpoint: Checkpoint, engine: str, device: str, texts: int, bf16: bool = False
) -> Model:
    """Load a model to sample B = `texts` texts side by side; see `open_engine`."""
    opened = open_engine(checkpoint, engine, device, texts, bf16)
    return Model(checkpoint.path, checkpoint.meta, *opened)


def new_seed(seed: int | None) -> int:
    """This seed, or a random one if it is None."""
    return int.from_bytes(os.urandom(4)) if seed is None else seed
