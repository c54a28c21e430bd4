"""What a trained model gives for a text: probabilities, surprisal, and its units.

Shapes: N characters of a text (bytes, with data.unit byte), V characters of the vocabulary, L
layers, D units of a layer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.api import arguments
from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import open_checkpoint
from charlm.config import Config
from charlm.config.describe import describe_model
from charlm.errors import CheckpointError
from charlm.sampling.engine import Engine, Reader
from charlm.sampling.generate import beginning, nats
from charlm.units import Likelihood, bits
from charlm.visible import visible

if TYPE_CHECKING:
    from charlm.models import CharModel


class Guesses(NamedTuple):
    """What may come next.

    Attributes:
        chars: the V characters of the vocabulary, most likely first. With data.unit byte, byte b is
            the character with code point b.
        probabilities: (V,) float64, the probability of each. Their sum is 1.
    """

    chars: str
    probabilities: NDArray[np.float64]


class ReadingModel:
    """The part of `charlm.api.Model` that reads texts.

    Attributes:
        path: the checkpoint file.
        meta: its metadata: config, vocabulary, training text, progress.
        vocab: its vocabulary; `vocab.encode(text)` are ids.
        engine: native, numpy or torch.
    """

    def __init__(self, path: Path, meta: Meta, engine: str, network: Engine) -> None:
        self.path, self.meta, self.vocab = path, meta, meta.vocabulary
        self.engine, self._network = engine, network

    def __repr__(self) -> str:
        meta, progress = self.meta, self.meta.progress
        loss = "not evaluated"
        if (best := progress.best_loss) is not None:
            loss = f"val {best:.4f} nats/char ({bits(best):.4f} bits/char)"
            if progress.best_step != progress.step:
                loss += f" at step {progress.best_step:,}"
        return visible(
            f"<charlm.Model {self.path}: {describe_model(meta.config.model)}, "
            f"{meta.parameters:,} parameters; text {meta.corpus.source}, {meta.corpus.chars:,} "
            f"{meta.config.data.unit}s, vocabulary {len(self.vocab)}; step {progress.step:,}, "
            f"{loss}; engine {self.engine}>"
        )

    @property
    def config(self) -> Config:
        """All settings of the run that trained the model."""
        return self.meta.config

    # --- probabilities ------------------------------------------------------------------------

    def logits(self, text: str) -> NDArray[np.float32]:
        """The outputs of the network after each character of a text of N characters.

        The text is read from a fresh state. A GPT reads past its context as in sampling.

        Returns:
            (N, V) float32. Row t is for the character that follows characters 0 to t. The softmax
            of a row is the probability of each character, in the order of `vocab.chars`.

        Raises:
            TypeError: the text is no string.
            DataError: a character is not in the vocabulary.
            BrokenModelError: the weights are broken.
        """
        ids, reader = self.vocab.encode(arguments.text("text", text)), Reader(self._network)
        rows = np.empty((len(ids), len(self.vocab)), np.float32)
        for t in range(len(ids)):
            rows[t] = reader.read(ids[None, t : t + 1])[0]
        return rows

    def next(self, text: str = "") -> Guesses:
        """The probability of each character to follow a text, with temperature 1 and no filter.

        With an empty text: at the start, as after a line end.

        Raises:
            TypeError, DataError, BrokenModelError: as `logits`.
        """
        ids = beginning(self.vocab, self.vocab.encode(arguments.text("text", text)))
        logits = Reader(self._network).read(ids[None])[0].astype(np.float64)  # (V,)
        p = np.exp(logits - logits.max())
        order = np.argsort(-p, kind="stable")
        return Guesses("".join(map(self.vocab.chars.__getitem__, order)), p[order] / p.sum())

    def surprisal(self, text: str, prompt: str = "") -> NDArray[np.float64]:
        """The surprisal of each character of a text that follows a prompt, in bits.

        Args:
            prompt: is read first. If it is empty, the text is read as after a line end.

        Returns:
            (N,) float64: -log2 of the probability of character t after the prompt and characters 0
            to t - 1. The mean is `score(text, prompt).bits_per_char`.

        Raises:
            TypeError, DataError, BrokenModelError: as `logits`.
        """
        return self._nats(text, prompt) * bits(1.0)

    def score(self, text: str, prompt: str = "") -> Likelihood:
        """The negative log-likelihood of a text that follows a prompt, read as in sampling.

        Raises:
            TypeError, DataError, BrokenModelError: as `logits`.
        """
        costs = self._nats(text, prompt)
        return Likelihood(float(costs.sum()), len(costs))

    def _nats(self, text: str, prompt: str) -> NDArray[np.float64]:
        """The surprisal of each character in nats, (N,)."""
        ids = self.vocab.encode(arguments.text("text", text))
        before = self.vocab.encode(arguments.text("prompt", prompt))
        reader, costs = Reader(self._network), np.empty(len(ids))
        logits = reader.read(beginning(self.vocab, before)[None])  # (1, V)
        for t in range(len(ids)):
            target = ids[t : t + 1]
            costs[t] = nats(logits.astype(np.float64), target.astype(np.intp))[0]
            if t + 1 < len(ids):
                logits = reader.read(target[None])
        return costs

    # --- inside ---------------------------------------------------------------------------------

    def states(self, text: str) -> dict[str, NDArray[np.float32]]:
        """The units of the network after each character of a text of N characters.

        The text is read from a fresh state, as for `logits`. This needs PyTorch, and the checkpoint
        file. For gates and attention, see charlm.insight.

        Returns:
            By kind, (L, N, D) float32. A recurrent network has `h`, the hidden state, and an LSTM
            also `c`, the cell state. An MLP has `h`, the hidden units. A GPT has `mlp`, the hidden
            layer of each MLP, and `x`, the residual stream after each block.

        Raises:
            TypeError: the text is no string.
            DataError: a character is not in the vocabulary.
            CheckpointError: as `torch_model`.
        """
        from charlm.config.shapes import unit_sizes
        from charlm.insight.record import stream

        ids, model = self.vocab.encode(arguments.text("text", text)), self.torch_model()
        units = {
            kind: np.empty((model.config.n_layer, len(ids), width), np.float32)
            for kind, width in unit_sizes(model.config).items()
        }
        for window, traced in stream(model, ids[None]) if len(ids) else ():
            here = slice(window.start + window.skip, window.stop)
            for kind, values in traced.units.items():
                units[kind][:, here] = values[:, 0, window.skip :].numpy()
        return units

    def torch_model(self, device: str = "cpu") -> CharModel:
        """The network as a module of PyTorch, for charlm.insight and for your own code.

        It is read from the checkpoint file again. Each call returns a new module.

        Raises:
            CheckpointError: the file is gone, or has another checkpoint now.
            DeviceError: the device is not available.
        """
        from charlm.checkpoint.weights import load_model

        with open_checkpoint(self.path) as opened:
            if opened.meta != self.meta:
                raise CheckpointError(f"{self.path}: the file has changed; load the model again")
            return load_model(opened, device)
