"""Sampling a text during training."""

from __future__ import annotations

from charlm.config import Config
from charlm.data.vocab import Vocab
from charlm.models import CharModel
from charlm.sampling.generate import generate
from charlm.sampling.torch import TorchEngine


class Preview:
    """Samples a text from a model in training, with the `sample` settings of the config.

    For the same weights and step the text is the same. The generators of the training are not used.
    """

    def __init__(self, config: Config, vocab: Vocab) -> None:
        self._sample, self._seed, self._vocab = config.sample, config.train.seed, vocab

    def __call__(self, model: CharModel, step: int) -> str:
        """Sample after the prompt of the config. Its unknown characters are left out.

        Returns:
            The prompt and the sampled text.

        Raises:
            BrokenModelError: a logit is not finite.
        """
        prompt, _ = self._vocab.encode_known(self._sample.prompt)
        engine = TorchEngine(model)
        text = "".join(generate(engine, self._vocab, prompt, self._sample, self._seed, step))
        return self._vocab.decode(prompt) + text
