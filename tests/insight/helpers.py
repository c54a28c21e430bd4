"""Shared by the tests of insight: small networks, texts, and a network with a planted unit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from charlm.config import RecurrentConfig
from charlm.data.vocab import Ids, Vocab
from charlm.models import CharModel, Recurrent, build_model
from tests.models import model_config

RECURRENT = ("rnn", "gru", "lstm")
KINDS = (*RECURRENT, "mlp", "gpt")


def network(kind: str, vocab_size: int = 9, seed: int = 1, **settings: Any) -> CharModel:
    """An untrained network of two layers, with large weights so that its outputs differ."""
    sizes: dict[str, dict[str, Any]] = {
        "gpt": {"n_head": 2, "n_embd": 8, "context": 12},
        "mlp": {"hidden_size": 6, "n_embd": 3, "context": 5, "activation": "tanh"},
    }
    raw = (
        sizes.get(kind, {"hidden_size": 6})
        | {"kind": kind, "n_layer": 2, "dropout": 0.3}
        | settings
    )
    model = build_model(model_config(raw), vocab_size, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if kind == "gpt" and parameter.ndim > 1 else 1.5)
    return model


def random_ids(count: int, vocab_size: int = 9, seed: int = 3) -> Ids:
    """Random ids (count,)."""
    return np.random.default_rng(seed).integers(0, vocab_size, count).astype(np.uint8)


def quoted_text(length: int, seed: int = 5) -> str:
    """Words, some of them in quotes of random length, brackets and lines of random length."""
    choose = random.Random(seed)
    text = ""
    while len(text) < length:
        words = " ".join(choose.choice(("sea", "ship", "a", "the", "gone")) for _ in range(5))
        text += choose.choice(('"' + words + '" ', words + " ", f"({words}) ", words + ".\n"))
    return text[:length]


def with_quote_detector(vocab: Vocab, hidden_size: int, unit: int) -> Recurrent:
    """An LSTM with random weights and one planted cell, which is +1 inside quotes and -1 outside.

    At a quotation mark its input gate opens, its forget gate shuts, and it takes the sign opposite
    to its output before. At other characters it keeps its value. Its first value, 0, counts as
    outside.
    """
    config = RecurrentConfig(kind="lstm", hidden_size=hidden_size, input="one_hot")
    model = build_model(config, len(vocab), seed=2)
    assert isinstance(model, Recurrent)
    (mark,) = vocab.encode('"')
    W_ih, W_hh, b_ih = (
        getattr(model.rnn, name).view(4, hidden_size, -1)  # (4, D, V, D or 1), gates i, f, g, o
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    )
    with torch.no_grad():
        W_ih[:, unit], W_hh[:, unit] = 0, 0
        W_hh[:, :, unit] = 0  # the other cells do not read it
        b_ih[:, unit, 0] = torch.tensor([-20.0, 20.0, 1.0, 20.0])
        W_ih[0, unit, mark], W_ih[1, unit, mark] = 40, -40
        W_hh[2, unit, unit] = -20
    return model
