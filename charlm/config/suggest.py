"""Default settings for a text that has no config, chosen by its length, the time and the speed.

The constants come from `scripts/fit_defaults`, which trains models of many sizes on several texts;
those of the MLP are coarse, from a dozen runs on one text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from charlm.config.base import LARGEST, SMALLEST
from charlm.config.describe import describe_model
from charlm.config.kinds import for_kind
from charlm.config.model import GPTConfig, MLPConfig, ModelConfig, RecurrentConfig
from charlm.config.names import MAX_NAME_BYTES, is_name_char, name_problem
from charlm.config.run import Config

DEFAULT_SECONDS = 180.0  # of a run whose time the user does not limit
_TRAINING = 0.9  # of the time; the rest is for the start, evaluations and samples


@dataclass(frozen=True)
class Kind:
    """How the best size of a kind of model grows.

    Attributes:
        widths: hidden_size or n_embd, to choose from.
        n_layer: number of layers.
        matrices: weights of a layer per width**2.
        seq_len: characters per sequence.
        chars_per_weight: the fewest characters to train on for each weight of the layers.
        lr, adamw_lr: learning rates of Muon and of AdamW.
    """

    widths: tuple[int, ...]
    n_layer: int
    matrices: int
    seq_len: int
    chars_per_weight: float
    lr: float = 0.02
    adamw_lr: float = 0.004

    def weights(self, width: int) -> int:
        """The number of weights of the layers, without the embedding and the output layer."""
        return self.n_layer * self.matrices * width**2


_RECURRENT_WIDTHS = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
# Chosen from runs of 0.6 to 4 million characters of one text only; longer runs may want more.
_MLP_CONTEXT = 8
MOST_WEIGHTS = 15  # for each character of the text
KINDS = {
    "lstm": Kind(_RECURRENT_WIDTHS, 1, 8, 64, 1.5, 0.03, 0.008),
    "gru": Kind(_RECURRENT_WIDTHS, 1, 6, 64, 3.0, 0.03, 0.008),
    "rnn": Kind(_RECURRENT_WIDTHS, 1, 2, 64, 3.0, 0.03, 0.008),
    "gpt": Kind((32, 64, 96, 128, 192, 256, 384, 512, 768), 4, 12, 128, 3.0),
    "mlp": Kind((64, 128, 256, 384, 512, 768, 1024, 1536, 2048), 3, 1, 64, 5.0),
}


@dataclass(frozen=True)
class Speed:
    """The speed of training models of a kind on a machine, by their width D.

    Attributes:
        per_width: seconds per character and D, of elementwise functions.
        per_weight: seconds per character and D**2, of matrix products.
        per_step: seconds per step and D**3, of Muon.
    """

    per_width: float
    per_weight: float
    per_step: float

    def chars(self, width: int, seconds: float, chars_per_step: int) -> float:
        """The number of characters to train on in a time."""
        per_char = self.per_width * width + self.per_weight * width**2
        return seconds / (per_char + self.per_step * width**3 / chars_per_step)


LAPTOP = Speed(2e-8, 2.4e-10, 2e-10)  # of an LSTM on two cores, about


@dataclass(frozen=True)
class Choice:
    """A size of a model, and how long it is trained.

    Attributes:
        chars: number of characters to train on, repetitions counted.
        epochs: number of passes over the text.
        enough: whether the text is so short that more time would not lower the loss.
    """

    kind: str
    width: int
    batch_size: int
    dropout: float
    chars: int
    epochs: float
    enough: bool

    @property
    def steps(self) -> int:
        """The number of steps, rounded to two digits."""
        steps = max(20, self.chars // (self.batch_size * self.seq_len))
        unit: int = 10 ** (len(str(steps)) - 2)
        return round(steps / unit) * unit

    @property
    def n_layer(self) -> int:
        return KINDS[self.kind].n_layer

    @property
    def seq_len(self) -> int:
        return KINDS[self.kind].seq_len

    @property
    def model(self) -> ModelConfig:
        return model_of(self.kind, self.width, self.dropout)


def model_of(kind: str, width: int, dropout: float = 0.0) -> ModelConfig:
    """The model of a kind with this width."""
    of = KINDS[kind]
    if kind == "gpt":
        return GPTConfig(
            n_layer=of.n_layer,
            n_head=_heads(width),
            n_embd=width,
            context=of.seq_len,
            dropout=dropout,
        )
    if kind == "mlp":
        return MLPConfig(
            context=_MLP_CONTEXT,
            n_layer=of.n_layer,
            hidden_size=width,
            n_embd=width // _MLP_CONTEXT,  # the first matrix is (D, D), like the others
            dropout=dropout,
        )
    return RecurrentConfig.model_validate(
        {"kind": kind, "n_layer": of.n_layer, "hidden_size": width}
        | {"input_dropout": dropout, "output_dropout": dropout}
    )


def minutes_problem(minutes: float) -> str | None:
    """What a number of minutes should be; None if a run can take so long."""
    if SMALLEST <= minutes <= LARGEST / 60:
        return None
    return "should be above 0" + f" and at most {LARGEST / 60:,.0f}" * (minutes > 0)


def choose(kind: str, chars: int, seconds: float, speed: Speed, width: int | None = None) -> Choice:
    """Choose the size of a model for a text and a time: the largest one that can be trained on
    enough characters, and is not too large for the text.

    Args:
        kind: lstm, gru, rnn, gpt or mlp.
        chars: number of characters of the training part.
        seconds: how long the run may take.
        speed: of training such models on this machine.
        width: that of a model that is there already.
    """
    of, chars = KINDS[kind], max(chars, 2)
    widths = (width,) if width else of.widths
    width, read = widths[0], 0.0
    for candidate in widths:
        weights = of.weights(candidate)
        longest = chars_in(of, chars, candidate, _TRAINING * seconds, speed)
        most = chars * _most_epochs(weights / chars)
        enough = min(longest, most) >= of.chars_per_weight * weights
        if candidate > width and not (enough and weights <= MOST_WEIGHTS * chars):
            break
        width, read, is_enough = candidate, min(longest, most), longest > most
    epochs = read / chars
    return Choice(
        kind=kind,
        width=width,
        batch_size=batch_size(read, chars, of.seq_len),
        dropout=dropout(epochs, of.weights(width) / chars),
        chars=round(read),
        epochs=epochs,
        enough=is_enough,
    )


def explain(choice: Choice, chars: int, seconds: float, is_limited: bool = False) -> list[str]:
    """Lines for the user: what was chosen, and why.

    Args:
        chars: number of characters of the training part.
        seconds: how long the run may take.
        is_limited: whether the user gave another limit for the run. The lines do not say then how
            long the run is.
    """
    minutes = f"{seconds / 60:g} minute{'s' * (seconds != 60)}"
    if is_limited:
        return [
            f"chosen for {chars:,} characters, as for a run of {minutes}: {describe_choice(choice)}"
        ]
    about = f", {choice.epochs:.2g} passes over the text"
    reason = "a larger model would see too few characters in this time, but more minutes give one"
    if choice.enough:
        reason = "the run ends earlier: more passes over a text of this length do not help"
    return [
        f"chosen for {chars:,} characters in {minutes}: {describe_choice(choice)}",
        f"this machine can train it on {choice.chars:,} characters{about}",
        reason,
    ]


def describe_choice(choice: Choice) -> str:
    """`lstm, 1 layer of 256, dropout 0.3, batches of 32`."""
    sizes = f"dropout {choice.dropout:g}, batches of {choice.batch_size}"
    return f"{describe_model(choice.model)}, {sizes}"


def chars_in(of: Kind, chars: int, width: int, seconds: float, speed: Speed) -> float:
    """The number of characters to train on in a time, for a text of `chars` characters.

    The size of a batch and this number depend on each other.
    """
    read = 3e6
    for _ in range(3):
        per_step = batch_size(read, chars, of.seq_len) * of.seq_len
        read = speed.chars(width, seconds, per_step)
    return read


def _most_epochs(weights_per_char: float) -> float:
    """The number of passes after which the best dropout no longer prevents overfitting."""
    return 110 / math.sqrt(max(0.3, weights_per_char))


def dropout(epochs: float, weights_per_char: float) -> float:
    """A large model and many passes overfit, and dropout prevents it."""
    pressure = epochs * math.sqrt(weights_per_char)
    rate = 0.17 * math.log(max(pressure, 1e-9) / 5)
    return min(0.65, max(0.0, round(20 * rate) / 20))


_BATCH_SIZES = (4, 8, 16, 32, 64, 128)


def batch_size(read: float, chars: int, seq_len: int) -> int:
    """A batch that grows with the square root of the length of a run, but not beyond the text, and
    is smaller for many passes over it."""
    passes = max(4, read / chars)
    ideal = 32 * math.sqrt(read / 3e6) * (4 / passes) ** 0.25 * 64 / seq_len
    nearest = min(_BATCH_SIZES, key=lambda size: abs(math.log(size / ideal)))
    return max(1, min(nearest, chars // (4 * seq_len)))


def suggest(
    path: tuple[str, ...],
    choice: Choice,
    seconds: float | None = None,
    like: Config | None = None,
) -> dict[str, Any]:
    """Return a config for a text, as nested dictionaries.

    Args:
        path: what the user gave as the text, see `data.path`.
        seconds: a limit of the time; None for a number of steps.
        like: the settings of a checkpoint to start with. Its model may be none that is suggested.
    """
    of = KINDS[choice.kind]
    limit: dict[str, float] = {} if seconds is None else {"max_seconds": seconds}
    if seconds is None or choice.enough:
        limit["max_steps"] = choice.steps
    settings: dict[str, Any] = {
        "name": name_for(path),
        "data": {"path": path[0] if len(path) == 1 else list(path)},
        "model": {}
        if like
        else {"kind": choice.kind} | choice.model.model_dump(exclude_defaults=True),
        "train": {
            "batch_size": choice.batch_size,
            **({} if choice.kind == "gpt" else {"seq_len": choice.seq_len}),  # it has a context
            **limit,
            "optimizer": {
                "kind": "muon",
                "weight_decay": 0.1,
                "lr": of.lr,
                "adamw_lr": of.adamw_lr,
            },
            "schedule": {"kind": "wsd", "warmup_steps": 10},
        },
    }
    if like:
        _fit_to_model(settings, like)
    return settings


def _heads(width: int) -> int:
    """A number of heads of a width of about 32, which must be even for rotary positions."""
    fits = [n for n in range(1, width // 32 + 1) if width % (2 * n) == 0]
    return max(fits, default=1)


def fit_heads(settings: dict[str, Any], overrides: Iterable[str]) -> None:
    """Fit the suggested number of heads of a GPT, in place, to an n_embd that the user sets."""
    if settings["model"]["kind"] != "gpt":
        return
    for override in overrides:
        key, _, value = for_kind(override, settings["model"]["kind"]).partition("=")
        if key.strip() == "model.n_embd" and value.strip().isdecimal():
            settings["model"]["n_head"] = _heads(int(value))


def _fit_to_model(settings: dict[str, Any], of: Config) -> None:
    """Take, in place, the model of the checkpoint with these settings, and what belongs to it."""
    recorded = of.model_dump(mode="json")
    settings["model"] = recorded["model"]
    for group, names in _OF_MODEL.items():
        settings.setdefault(group, {}).update({name: recorded[group][name] for name in names})


# the characters that its vocabulary has, and what its optimizer and evaluations were chosen for
_OF_MODEL = {
    "data": ("unit", "documents", "normalize", "newlines", "vocab_min_count", "vocab_size"),
    "train": ("batches", "seq_len", "optimizer"),
    "eval": ("protocol",),
}


def name_for(path: tuple[str, ...]) -> str:
    """Return a valid name for a run: the name of the first file, without spaces, parentheses and
    characters that are not allowed."""
    name = PurePath(path[0]).name.removeprefix("builtin:")
    stem = unicodedata.normalize("NFC", name.split(".")[0] or name)
    kept = "".join(char if is_name_char(char) and char not in " ()" else " " for char in stem)
    short = re.sub(" +", "-", kept).encode(errors="ignore")[:MAX_NAME_BYTES].decode(errors="ignore")
    short = short.strip("-._+")
    return "text" if name_problem(short) else short
