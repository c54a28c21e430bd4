"""A trained model in a program of one's own.

    from charlm import load

    model = load("checkpoints/shakespeare-lstm")
    text = model.sample("ROMEO:", length=200, temperature=0.8, seed=1)
    for char in model.stream("ROMEO:", length=None):  # without end
        print(char, end="", flush=True)
    print(model.score("To be, or not to be").bits_per_char)

Which engine: `native` computes on the CPU in C, compiled once for the machine at hand, in as many
threads as are faster. `numpy` computes the same where there is no C compiler. Neither needs torch.
`torch` computes on a GPU, or on the CPU. `auto` is torch where the device is named and is not the
CPU, or where bf16 is asked for; else it is native; and where that cannot be compiled, torch for
FOR_TORCH texts or more side by side, and numpy for fewer. All compute the same in float32, but for
the last bits (native, from 8 texts on, where the CPU has AMX, with 16 bits of each number), so that
nearly always the same seed gives the same text; each by itself always does, for as many at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from charlm.config import SampleConfig
from charlm.config.files import updated
from charlm.data.vocab import Ids
from charlm.errors import CharlmError, DataError
from charlm.kernels.compiler import NoKernelError
from charlm.sampling.engine import Engine, Reader
from charlm.sampling.generate import Conversation, beginning, nats, write
from charlm.sampling.native import native
from charlm.sampling.networks import build_network
from charlm.sampling.novelty import Novelty, compare
from charlm.sampling.text import Order, Written
from charlm.training.checkpoint import Meta, find_checkpoint, read_meta, reading
from charlm.training.mapped import map_weights
from charlm.units import Likelihood

if TYPE_CHECKING:
    from charlm.data.corpus import TextIds

FOR_TORCH = 16
ENGINES = ("native", "numpy", "torch")


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
        engine: which of ENGINES writes.
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
        order = Order(self.settings(**settings), length, stop)
        written = self.write(self.vocab.encode(prompt), order, new_seed(seed), [0])
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
        are_items = self.meta.config.data.documents == "lines"
        return compare(samples, self.vocab, self._training_text(), are_items)

    def settings(self, **settings: Unpack[Settings]) -> SampleConfig:
        """The model's own settings with some changed.

        Raises:
            ConfigError: one is out of range.
        """
        return updated(self.meta.config.sample, **settings)

    def write(
        self, prompt: Ids, order: Order, seed: int, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Written | None]]:
        """As charlm.sampling.generate.write."""
        return write(self._engine, self.vocab, prompt, order, seed, numbers)

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
    """The model of a checkpoint, for writing so many texts side by side; bf16 as TorchEngine."""
    reason: NoKernelError | None = None
    for name in choose_engines(engine, device, texts, bf16):
        try:
            return Model(path, meta, name, _open_engine(path, meta, name, device, bf16))
        except NoKernelError as error:
            reason = error
    raise CharlmError(f"--engine {engine}: {reason}; take auto") from reason


def choose_engines(engine: str, device: str, texts: int, bf16: bool = False) -> list[str]:
    """The rule of `auto`, at the top of this file: the first that can be had.

    Raises:
        CharlmError: an engine is asked for that cannot do what is asked for.
    """
    elsewhere = device not in ("auto", "cpu")
    if engine == "auto":
        if elsewhere or bf16:
            return ["torch"]
        return ["native", "torch" if texts >= FOR_TORCH else "numpy"]
    if engine not in ENGINES:
        raise CharlmError(f"--engine {engine}: choose auto, {', '.join(ENGINES[:-1])} or torch")
    if engine != "torch" and (elsewhere or bf16):
        wanted = f"on the CPU, not on {device}" if elsewhere else "in fp32, not in bf16"
        raise CharlmError(f"--engine {engine}: it computes {wanted}; take torch")
    return [engine]


def _open_engine(path: Path, meta: Meta, engine: str, device: str, bf16: bool) -> Engine:
    if engine != "torch":
        weights = map_weights(path)
        with reading(path):
            network = build_network(meta.config.model, len(meta.vocab), weights)
        return native(network) if engine == "native" else network
    from charlm.sampling.torch_engine import TorchEngine
    from charlm.training.weights import load_model

    return TorchEngine(load_model(path, meta, device), bf16)


def new_seed(seed: int | None) -> int:
    """This seed, or where there is none, one that nobody has seen."""
    return int.from_bytes(os.urandom(4)) if seed is None else seed
