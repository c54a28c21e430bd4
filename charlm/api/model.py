"""Loading a trained model, and sampling from it.

charlm.sampling.engines says which engine computes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack, overload

import numpy as np

from charlm.api import arguments
from charlm.api.reading import ReadingModel
from charlm.checkpoint.read import Checkpoint, check_vocabulary, find_checkpoint, open_checkpoint
from charlm.config import SampleConfig
from charlm.config.base import MAX_COUNT, MAX_SEED
from charlm.config.files import as_argument, updated
from charlm.data.vocab import Ids
from charlm.errors import DataError
from charlm.sampling.engines import open_engine
from charlm.sampling.generate import Conversation, sample_texts
from charlm.sampling.novelty import Novelty, compare
from charlm.sampling.text import Chunk, SampleSpec

if TYPE_CHECKING:
    from charlm.data.corpus import TextIds

SIDE_BY_SIDE = 32  # texts that are sampled at the same time


class Settings(TypedDict, total=False):
    """How characters are drawn. A setting that is missing or None comes from the model's config."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None


class Model(ReadingModel):
    """A trained model. Made by `charlm.load` and `charlm.train`.

    Threads may use one model at the same time: each text has a state of its own. So may processes
    that were forked after the model was loaded, with the engines native and numpy; PyTorch does not
    support a fork after it has computed with several threads.
    """

    @overload
    def sample(
        self,
        prompt: str = "",
        *,
        length: int | None = 200,
        stop: str | None = None,
        seed: int | None = None,
        num_samples: None = None,
        **settings: Unpack[Settings],
    ) -> str: ...

    @overload
    def sample(
        self,
        prompt: str = "",
        *,
        length: int | None = 200,
        stop: str | None = None,
        seed: int | None = None,
        num_samples: int,
        **settings: Unpack[Settings],
    ) -> list[str]: ...

    def sample(
        self,
        prompt: str = "",
        *,
        length: int | None = 200,
        stop: str | None = None,
        seed: int | None = None,
        num_samples: int | None = None,
        **settings: Unpack[Settings],
    ) -> str | list[str]:
        """Sample a text. As `stream`, but returns the whole text at once.

        Args:
            num_samples: the number of texts, sampled side by side; None for one.

        Returns:
            The text after the prompt; with `num_samples`, a list of texts. The texts of a seed are
            those of `charlm sample --num-samples`.

        Raises:
            ValueError: there is neither a length nor a stop, so the text would never end.
        """
        spec, ids = self._request("sample", prompt, length, stop, settings)
        if spec.length is None and spec.stop is None:
            raise ValueError(
                f"length={length}: the text would never end; give length=N or stop=TEXT, or use "
                "stream()"
            )
        count = (
            1 if num_samples is None else arguments.integer("num_samples", num_samples, 1, 10**6)
        )
        chosen, texts = new_seed(seed), [""] * count
        for first in range(0, count, SIDE_BY_SIDE):
            numbers = range(first, min(first + SIDE_BY_SIDE, count))
            for number, chunk in self.sample_texts(ids, spec, chosen, numbers):
                texts[number] += "" if chunk is None else chunk.text
        return texts[0] if num_samples is None else texts

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
            length: the number of characters (or bytes). None or 0 for no limit, as `--length 0`.
            stop: the text ends before this string would appear in it.
            seed: the same seed gives the same text; None takes a new seed.
            settings: see `Settings`.

        Returns:
            The characters that follow the prompt.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value.
            ConfigError: a setting is out of range.
            DataError: the prompt has a character that is not in the vocabulary.
            BrokenModelError: the weights are broken.
        """
        spec, ids = self._request("stream", prompt, length, stop, settings)
        chunks = self.sample_texts(ids, spec, new_seed(seed), [0])
        return (char for _, chunk in chunks if chunk is not None for char in chunk.text)

    def settings(self, **settings: Unpack[Settings]) -> SampleConfig:
        """The `sample` settings of the model's config, with these settings changed.

        Raises:
            ConfigError: a setting is out of range.
        """
        numbers = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in settings.items()
        }
        return updated(self.meta.config.sample, as_argument, **numbers)

    def sample_texts(
        self, prompt: Ids, spec: SampleSpec, seed: int, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Chunk | None]]:
        """Sample several texts; see charlm.sampling.generate.sample_texts."""
        return sample_texts(self._network, self.vocab, prompt, spec, seed, numbers)

    def converse(self, seed: int) -> Conversation:
        """Start a text that the user and the model continue in turns."""
        return Conversation(self._network, self.vocab, seed)

    def _request(
        self, function: str, prompt: str, length: int | None, stop: str | None, settings: Settings
    ) -> tuple[SampleSpec, Ids]:
        """Check the arguments of sampling; what to sample, and the ids of the prompt."""
        arguments.refuse_unknown(
            function, settings, ["length", "stop", "seed", *Settings.__annotations__]
        )
        limit = None if length is None else arguments.integer("length", length, 0, MAX_COUNT)
        if stop is not None and not arguments.text("stop", stop):
            raise ValueError("stop= should be a string that is not empty, or None")
        spec = SampleSpec(self.settings(**settings), limit or None, stop)
        return spec, self.vocab.encode(arguments.text("prompt", prompt))

    def novelty(self, samples: Sequence[str]) -> Novelty:
        """Measure how much of the samples is copied from the training text.

        Raises:
            CheckpointError: its vocabulary is not that of the training text.
            DataError: the training text is missing or has changed.
        """
        of_documents = self.meta.config.data.documents == "lines"
        training, *held_out = self._texts()
        return compare(samples, self.vocab, training, of_documents, held_out)

    def _texts(self) -> list[TextIds]:
        """The training, validation and test texts."""
        from charlm.data.corpus import open_corpus

        data, expected = self.meta.config.data, self.meta.corpus.sha256
        corpus = open_corpus(data, self.vocab, extend=False, expected=expected, named=())
        if corpus.sha256 != expected:
            raise DataError(f"{corpus.source}: not the text this model was trained on")
        check_vocabulary(self.path, self.meta, corpus.vocab.chars)
        return [corpus.split(part) for part in ("train", "val", "test")]


def load(
    checkpoint: str | Path | None = None, *, engine: str = "auto", device: str = "auto"
) -> Model:
    """Load a trained model.

    Args:
        checkpoint: a file, or a run folder (its best checkpoint, otherwise its last). The default
            is the newest run under checkpoints/.
        engine: native, numpy, torch or auto; see charlm.sampling.engines.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        CharlmError: the checkpoint, engine or device is not available.
    """
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
    """This seed, or a random one if it is None.

    Raises:
        TypeError, ValueError: it is not an integer from 0 to MAX_SEED.
    """
    if seed is None:
        return int.from_bytes(os.urandom(4))
    return arguments.integer("seed", seed, 0, MAX_SEED)
