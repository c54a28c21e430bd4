"""Train a network of charlm.scratch on a text, and watch what it writes."""

from __future__ import annotations

import argparse
import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np

from charlm.scratch import Ids
from charlm.scratch.gpt import GPT
from charlm.scratch.gru import GRU
from charlm.scratch.lstm import LSTM
from charlm.scratch.mlp import MLP
from charlm.scratch.rnn import RNN
from charlm.scratch.sgd import SGD, Adagrad, Adam, RMSProp
from charlm.scratch.text import Text
from charlm.scratch.trainer import Model, Optimizer, Trainer, evaluate, sample

B, T = 16, 64  # sequences, and characters of each that a step reads
MODELS: dict[str, Callable[[np.random.Generator, int], Model]] = {
    "mlp": MLP.random,
    "sigmoid": lambda rng, V: MLP.random(rng, V, units="sigmoid", one_hot=True),
    "rnn": RNN.random,
    "lstm": LSTM.random,
    "gru": GRU.random,
    "gpt": lambda rng, V: GPT.random(rng, V, D=64, L=2, H=4, context=T),
}
OPTIMIZERS: dict[str, tuple[Callable[[], Optimizer], float]] = {  # and a learning rate
    "sgd": (SGD, 0.1),
    "adagrad": (Adagrad, 0.03),
    "rmsprop": (RMSProp, 0.003),
    "adam": (Adam, 0.005),
}
REPORTS, SAMPLE = 10, 300  # reports of a run, and characters of a sample
SHORTEST, HELD_OUT = 100, 20_000  # characters of a text, and of the rest that reports measure


class MistakeError(Exception):
    """A mistake of the user, in one line."""


class Parser(argparse.ArgumentParser):
    """A parser that raises `MistakeError`."""

    def error(self, message: str) -> NoReturn:
        """Raise the mistake, without the lines of usage."""
        raise MistakeError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program. Returns the exit status: 0; 2 for a mistake; 130 after Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # characters that it cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with np.errstate(all="ignore"):  # `run` checks the loss
            return run(parsed(arguments))
    except MistakeError as mistake:
        print(f"charlm.scratch: {shown(str(mistake))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. Raises MistakeError."""
    parser = Parser(prog="python -m charlm.scratch", description=__doc__)
    parser.add_argument("model", choices=MODELS, help="sigmoid: an mlp with one-hot inputs")
    parser.add_argument("text", help="a file in UTF-8")
    parser.add_argument("--minutes", type=positive, default=2.0, help="of training (2)")
    parser.add_argument("--steps", type=positive, default=math.inf, help="end after this many")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="(adam)")
    parser.add_argument("--lr", type=positive, help="learning rate at the start; it falls to 0")
    parser.add_argument("--seed", type=natural, default=0, help="of weights and samples (0)")
    return parser.parse_args(arguments)


def positive(value: str) -> float:
    """A number above 0."""
    if not (number := float(value)) > 0:
        raise ValueError
    return number


def natural(value: str) -> int:
    """A whole number from 0 on."""
    if (number := int(value)) < 0:
        raise ValueError
    return number


def read(path: str) -> Text:
    """The text of a file. Raises MistakeError."""
    try:
        text = Text.read(path)
    except OSError as error:
        raise MistakeError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MistakeError(f"{path} is not in UTF-8; convert it to UTF-8") from None
    if (N := len(text.ids)) < SHORTEST:
        raise MistakeError(f"{path} has {N} characters; use a text of at least {SHORTEST}")
    return text


def run(options: argparse.Namespace) -> int:
    """Train on nine tenths of the text, and measure the loss on the rest. Raises MistakeError."""
    text, rng = read(options.text), np.random.default_rng(options.seed)
    model = MODELS[options.model](rng, text.V)
    make_optimizer, lr = OPTIMIZERS[options.optimizer]
    trainer, lr = Trainer(model, make_optimizer(), text.train, B, T), options.lr or lr
    count = sum(weight.size for weight in model.weights.values())
    print(f"{options.model}, {count:,} weights; {len(text.ids):,} characters, {text.V} different")

    def report(held_out: Ids) -> None:
        loss, of_rest = np.mean(losses[-max(1, latest) :]), evaluate(model, held_out, T)
        if not math.isfinite(of_rest):
            raise MistakeError(f"the loss at step {len(losses)} is not finite; use a smaller --lr")
        print(f"\nstep {len(losses):,}, {seconds:.0f} s: loss {loss:.3f}, held out {of_rest:.3f}")
        written = sample(model, rng, int(text.train[0]), SAMPLE)
        print(shown(text.decode(written), keep="\n\t"), flush=True)

    losses, seconds, done, latest, reports, status = list[float](), 0.0, 0.0, 0, 0, 0
    try:
        while done < 1:
            started = time.perf_counter()
            losses.append(trainer.step(lr * (1 - done)))
            seconds += time.perf_counter() - started
            done = max(seconds / 60 / options.minutes, len(losses) / options.steps)
            latest += 1
            if reports / REPORTS <= done < 1:
                report(text.rest[:HELD_OUT])
                reports, latest = reports + 1, 0
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    if losses:
        report(text.rest)
    return status


def shown(text: str, keep: str = "") -> str:
    """Characters that could control a terminal as escapes, except those to keep."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


if __name__ == "__main__":
    raise SystemExit(main())
