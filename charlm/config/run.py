"""A whole run: text, network, loop, validation, writing."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from charlm.config.base import (
    AtLeastTwo,
    Count,
    Group,
    MayChange,
    NotNegative,
    Positive,
    Ratio,
    WholeNumber,
    refuse,
)
from charlm.config.data import DataConfig
from charlm.config.model import GPTConfig, ModelConfig, RecurrentConfig
from charlm.config.train import TrainConfig


class EvalConfig(Group):
    """Validation during training, and the defaults of `charlm eval`."""

    every: Annotated[Count | None, MayChange()] = Field(
        250, description="steps between two evaluations; null for one at the end"
    )
    protocol: Literal["stream", "windows", "items"] = Field(
        "stream",
        description="stream scores every character of the split once, with the state carried on; "
        "windows scores random windows, each with a fresh state; items scores the items of a list, "
        "each with a fresh state, and is the default where train.batches is items",
    )
    window: Count = Field(
        256, description="characters a window (windows); a gpt's context is the most"
    )
    n_windows: Count = Field(2000, description="how many windows (windows)")
    max_chars: AtLeastTwo | None = Field(
        None, description="during training, look at so much of the split only"
    )
    sample_every: Annotated[Count | None, MayChange()] = Field(
        500, description="steps between two samples of text; null for none"
    )
    insight: bool = Field(
        True,
        description="at evaluations, where it costs next to nothing, show units, gates and "
        "attention in TensorBoard",
    )


class SampleConfig(Group):
    """The text written during training, and the defaults of `charlm sample`."""

    prompt: str = Field("", description="text to continue; empty starts as after a line end")
    length: WholeNumber = Field(
        200, description="characters to write; with 0 charlm sample writes until it is stopped"
    )
    temperature: NotNegative = Field(
        0.8, description="0 takes the likeliest character, 1 the model's own probabilities"
    )
    top_k: Count | None = Field(None, description="draw from the k likeliest characters")
    top_p: Ratio | None = Field(
        None, description="draw from the likeliest characters that make up p together"
    )
    min_p: Ratio | None = Field(
        None, description="draw from characters at least so likely as this share of the likeliest"
    )
    repetition_penalty: Positive = Field(
        1.0,
        description="divide the scores of characters among the last 64 by this; above 1 makes them "
        "less likely",
    )


DEFAULT_MAX_STEPS = 2000


class Config(Group):
    """A run of charlm."""

    name: Annotated[str, MayChange()] = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$",
        max_length=100,
        description="of the run and its folder; the file's own name where it is not given",
    )
    data: DataConfig = Field(description="the text")
    model: ModelConfig = Field(RecurrentConfig(), description="the network")
    train: TrainConfig = Field(TrainConfig(), description="the loop")
    eval: EvalConfig = Field(EvalConfig(), description="validation")
    sample: Annotated[SampleConfig, MayChange()] = Field(SampleConfig(), description="writing")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        """Fill in the defaults that depend on another setting."""
        if not isinstance(raw, dict):
            return raw
        model = _with_defaults(raw.get("model"), {"kind": "lstm"})
        train = _with_defaults(raw.get("train"), {})
        if isinstance(model, dict) and isinstance(train, dict):
            if model["kind"] == "gpt":
                context = model.get("context", GPTConfig().context)
                train = {"seq_len": context, "batches": "windows"} | train
            if all(train.get(f"max_{unit}") is None for unit in ("steps", "epochs", "seconds")):
                train = train | {"max_steps": DEFAULT_MAX_STEPS}
            for part, kind in (("optimizer", "adamw"), ("schedule", "cosine")):
                train = train | {part: _with_defaults(train.get(part), {"kind": kind})}
            if train.get("batches") == "items":
                raw = raw | {"eval": _with_defaults(raw.get("eval"), {"protocol": "items"})}
        return raw | {"model": model, "train": train}

    @model_validator(mode="after")
    def _check(self) -> Self:
        gpt = isinstance(self.model, GPTConfig)
        a_list = self.data.documents == "lines"
        refuse(
            f"train.seq_len: {self.train.seq_len} is not model.context {self.model.context}; leave "
            "it out, and set model.context"
            if isinstance(self.model, GPTConfig) and self.train.seq_len != self.model.context
            else None,
            "train.batches: a gpt starts every sequence afresh; leave it out, or set windows"
            if gpt and self.train.batches == "streams"
            else None,
            "train.patience: it counts evaluations, and eval.every is null; set eval.every"
            if self.train.patience and self.eval.every is None
            else None,
            "train.patience: it counts evaluations, and data.val_fraction is 0; hold some text out"
            if self.train.patience and self.data.val_fraction == 0 and not self.data.val_path
            else None,
            "train.batches: items are of a list; set data.documents to lines"
            if self.train.batches == "items" and not a_list
            else None,
            "eval.protocol: items are of a list; set data.documents to lines"
            if self.eval.protocol == "items" and not (a_list or self.train.batches == "items")
            else None,
        )
        return self


def _with_defaults(raw: Any, defaults: dict[str, Any]) -> Any:
    """`raw` over `defaults`; what is no mapping is left for pydantic to refuse."""
    if raw is None:
        return defaults
    return defaults | raw if isinstance(raw, dict) else raw
