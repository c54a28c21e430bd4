"""Train variants of the GPT of charlm.scratch, and compare their losses."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from charlm.scratch import Array, Ids, parts
from charlm.scratch.functions import cross_entropy, softmax
from charlm.scratch.gpt import GPT
from charlm.scratch.sgd import Adam
from charlm.scratch.text import Text
from charlm.scratch.trainer import Trainer, sample

ALICE = Path(__file__).resolve().parents[1] / "docs" / "learn" / "alice.txt"
B, T, D, L, H = 16, 16, 32, 2, 4
LR, SEEDS, HELD_OUT = 0.01, 3, 2000


class Squared(GPT):
    """Scores (q k / sqrt K)^2. This is the dot product of all products of two numbers of q with
    those of k, so `parts.attention` computes it from vectors of K^2 numbers."""

    @staticmethod
    def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Any, ...]]:  # (B, H, T, K) each
        pairs = [(x[..., None] * x[..., None, :]).reshape(*x.shape[:-1], -1) for x in (q, k)]
        y, kept = parts.attention(*pairs, v)  # q and k (B, H, T, K^2); divides by sqrt(K^2)
        return y, (q, k, kept)

    @staticmethod
    def attend_back(d_y: Array, kept: tuple[Any, ...]) -> tuple[Array, Array, Array]:
        q, k, inner = kept
        *d_pairs, d_v = parts.attention_back(d_y, inner)  # (B, H, T, K^2) twice

        def back(d: Array, x: Array) -> Array:  # (B, H, T, K^2), (B, H, T, K) -> (B, H, T, K)
            d = d.reshape(*x.shape, -1)  # (B, H, T, K, K)
            return ((d + d.swapaxes(-1, -2)) @ x[..., None])[..., 0]

        return back(d_pairs[0], q), back(d_pairs[1], k), d_v


class Lower(GPT):
    """The lower left is masked: t sees t and what follows. It is attention from back to front."""

    @staticmethod
    def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Any, ...]]:
        y, kept = parts.attention(*(np.flip(x, axis=2) for x in (q, k, v)))
        return np.flip(y, axis=2), kept

    @staticmethod
    def attend_back(d_y: Array, kept: tuple[Any, ...]) -> tuple[Array, Array, Array]:
        d_q, d_k, d_v = parts.attention_back(np.flip(d_y, axis=2), kept)
        return np.flip(d_q, axis=2), np.flip(d_k, axis=2), np.flip(d_v, axis=2)


class NoMask(GPT):
    """Every position sees all. `parts.attention_back` is right for any mask."""

    @staticmethod
    def attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Any, ...]]:
        a = softmax(q @ k.swapaxes(2, 3) / math.sqrt(q.shape[-1]))  # (B, H, T, T)
        return a @ v, (q, k, v, a)


class NoPositions(GPT):
    """The table of positions is not used."""

    def embed(self, ids: Ids) -> Array:  # (B, T) -> (B, T, D)
        x: Array = self.weights["embed.weight"][ids]
        return x


VARIANTS: dict[str, tuple[type[GPT], int]] = {  # and the number of heads
    "as in `gpt.py`": (GPT, H),
    "squared dot product": (Squared, H),
    "lower left masked": (Lower, H),
    "nothing masked": (NoMask, H),
    "no positions": (NoPositions, H),
    "one head": (GPT, 1),
}


def measured(model: GPT, ids: Ids) -> tuple[float, float]:
    """The loss of a text in nats per character, measured as in training and as in sampling.

    In training, the model is given T characters at once. In sampling, it is given only those before
    the character that it predicts.

    Args:
        ids: (N,); it is cut into pieces of T + 1 characters.
    """
    rows = ids[: len(ids) // (T + 1) * (T + 1)].reshape(-1, T + 1)  # (N / (T+1), T+1)
    at_once, _ = model.forward(rows[:, :-1])  # (N / (T+1), T, V)
    one_by_one = [model.forward(rows[:, :t])[0][:, -1] for t in range(1, T + 1)]
    ways = (at_once, np.stack(one_by_one, axis=1))
    in_training, in_sampling = (cross_entropy(logits, rows[:, 1:])[0] for logits in ways)
    return in_training, in_sampling


def experiment(kind: type[GPT], heads: int, steps: int, seed: int) -> tuple[list[float], str]:
    """The losses in training, held out, held out as in sampling; and a sample."""
    text, rng = Text.read(str(ALICE)), np.random.default_rng(seed)
    model = kind(GPT.random(rng, text.V, D, L, heads, T).weights, heads)
    trainer = Trainer(model, Adam(), text.train, B, T)
    losses = [trainer.step(LR * (1 - step / steps)) for step in range(steps)]
    written = text.decode(sample(model, rng, text.number["A"], 60))
    last = float(np.mean(losses[-steps // 10 :]))
    return [last, *measured(model, text.rest[:HELD_OUT])], "A" + " ".join(written.split())


def main() -> None:
    """Print the table: means over seeds, and the largest distance of a seed from the mean."""
    parser = argparse.ArgumentParser(prog="scripts/learn_experiments", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="of training (1000)")
    options = parser.parse_args()
    print("| variant | training loss | held out, as in training | held out, as in sampling | ± |")
    print("|---|---|---|---|---|")
    samples = {}
    for name, (kind, heads) in VARIANTS.items():
        runs = [experiment(kind, heads, options.steps, seed) for seed in range(SEEDS)]
        losses = np.array([run[0] for run in runs])  # (SEEDS, 3)
        means = losses.mean(axis=0)
        spread = np.abs(losses - means).max()
        print(f"| {name} |", *(f"{mean:.2f} |" for mean in means), f"{spread:.2f} |", flush=True)
        samples[name] = runs[0][1]
    for name, written in samples.items():
        print(f"\n{name}: {written}")


if __name__ == "__main__":
    main()
