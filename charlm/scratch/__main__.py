"""`python -m charlm.scratch rnn book.txt`: train a network on a text, and watch what it writes."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from charlm.scratch import Ids
from charlm.scratch.gpt import GPT
from charlm.scratch.gru import GRU
from charlm.scratch.lstm import LSTM
from charlm.scratch.mlp import MLP
from charlm.scratch.rnn import RNN
from charlm.scratch.sgd import SGD, Adagrad, Adam, RMSProp
from charlm.scratch.trainer import Model, Optimizer, Trainer, evaluate, sample

B, T = 32, 32  # sequences, and characters of each at a step
SHORTEST = 100  # characters
Rng = np.random.Generator
MODELS: dict[str, Callable[[Rng, int], Model]] = {
    "mlp": MLP.random,
    "classic": lambda rng, V: MLP.random(rng, V, units="sigmoid", one_hot=True),
    "rnn": RNN.random,
    "lstm": LSTM.random,
    "gru": GRU.random,
    "gpt": lambda rng, V: GPT.random(rng, V, D=64, L=2, H=4, context=64),
}
OPTIMIZERS: dict[str, tuple[Callable[[], Optimizer], float]] = {  # and the learning rate
    "sgd": (SGD, 0.1),
    "adagrad": (Adagrad, 0.03),
    "rmsprop": (RMSProp, 0.003),
    "adam": (Adam, 0.005),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and sample. Returns the exit status: 0, 2 for a mistake, 130 after Ctrl-C."""
    sys.stdout.reconfigure(errors="replace")
    try:
        return train(parse(arguments))
    ...
