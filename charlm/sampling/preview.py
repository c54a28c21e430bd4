"""The text that is sampled during training."""

from __future__ import annotations

from charlm.config import Config
from charlm.data.vocab import Vocab
from charlm.models import CharModel
from charlm.sampling.generate import generate
from charlm.sampling.torch import TorchEngine


class Preview:
    """Samples a text from a model in training, by the `sample` settings of its config.

    The same step gives the same text, and nothing is taken from training's generators.
    """

    def __init__(self, config: Config, vocab: Vocab) -> None:
        self._sample, self._seed, self._vocab = config.sample, config.train.seed, vocab

    def __call__(self, model: CharModel, step: int) -> str:
        """The prompt and what follows it.

        Raises:
            BrokenModelError: the model gives no finite numbers.
        """
        prompt, _ = self._vocab.encode_known(self._sample.prompt)
        engine = TorchEngine(model)
        pieces = generate(engine, self._vocab, prompt, self._sample, self._seed, step)
        return self._vocab.decode(prompt) + "".join(pieces)
