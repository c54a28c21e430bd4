"""Sampling a text during training."""

from __future__ import annotations

from charlm.config import Config
from charlm.data.vocab import Vocab
from charlm.models import CharModel
from charlm.sampling.generate import generate
from charlm.sampling.torch import TorchEngine


def preview(config: Config, vocab: Vocab, model: CharModel, step: int) -> str:
    """Sample a text from a model in training, with the `sample` settings of the config.

    For the same weights and step the text is the same. The generators of the training are not
    used. Unknown characters of the config's prompt are left out.

    Returns:
        The prompt and the sampled text.

    Raises:
        BrokenModelError: a logit is not finite.
    """
    prompt, _ = vocab.encode_known(config.sample.prompt)
    pieces = generate(TorchEngine(model), vocab, prompt, config.sample, config.train.seed, step)
    return vocab.decode(prompt) + "".join(pieces)
