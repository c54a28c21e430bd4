"""All settings of a run, and the settings of evaluation and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from charlm.config.base import (
    AtLeastTwoOrAuto,
    Group,
    Length,
    MayChange,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveIntOrAuto,
    Ratio,
    Temperature,
    Text,
)
from charlm.config.data import DataConfig
from charlm.config.model import GPTConfig, ModelConfig, RecurrentConfig
from charlm.config.names import RunName
from charlm.config.shown import shown
from charlm.config.train import LIMITS, TrainConfig


class EvalConfig(Group):
    """Settings of the evaluation during training, and the defaults of `charlm eval`."""

    every: Annotated[PositiveIntOrAuto | None, MayChange()] = Field(
        "auto",
        description="number of steps between two evaluations; auto for 10 evaluations in a run; "
        "null for one at the end",
    )
    protocol: Literal["stream", "windows", "items"] = Field(
        "stream",
        description="how to score the text: stream: every character of the split once, with the "
        "state carried over (for a gpt: in overlapping windows); windows: random windows, each "
        "with a fresh state; items: every document, each with a fresh state; the default is items "
        "if train.batches is items",
    )
    window: Length = Field(
        256,
        description="number of characters per window, at most the context of a gpt; for protocol "
        "windows",
    )
    n_windows: Length = Field(2000, description="number of windows; for protocol windows")
    max_chars: AtLeastTwoOrAuto | None = Field(
        "auto",
        description="number of characters, from the start of the validation split, that are scored "
        "during training; auto limits this number, or that of windows, so that 10 evaluations take "
        "less than 5% of the time; null for the whole split",
    )
    sample_every: Annotated[PositiveIntOrAuto | None, MayChange()] = Field(
        "auto",
        description="number of steps between two text samples during training; auto for 5 samples "
        "in a run; null for no samples",
    )
    insight: bool = Field(
        True,
        description="record units, gates and attention for TensorBoard at evaluations; an "
        "evaluation is skipped if all records would take more than about 1% of the training time",
    )


class SampleConfig(Group):
    """Settings of sampling during training, and the defaults of `charlm sample`."""

    prompt: Text = Field(
        "", description="text to continue; if it is empty, sampling starts after a line end"
    )
    length: NonNegativeInt = Field(
        200,
        description="number of characters to generate (bytes for data.unit byte); with 0, `charlm "
        "sample` generates until it is stopped",
    )
    temperature: Temperature = Field(
        0.8,
        description="divisor of the logits; 1 samples from the probabilities of the model, 0 "
        "always takes the most likely character",
    )
    top_k: PositiveInt | None = Field(
        None,
        description="sample only from the top_k most likely characters; null for all characters",
    )
    top_p: Ratio | None = Field(
        None,
        description="sample only from the most likely characters whose probabilities together "
        "reach this value (nucleus sampling); null for all characters",
    )
    min_p: Ratio | None = Field(
        None,
        description="sample only from characters whose probability is at least this fraction of "
        "the highest one; null for all characters",
    )
    repetition_penalty: PositiveFloat = Field(
        1.0,
        description="factor that lowers the logits of the last 64 characters: positive logits are "
        "divided by it, negative logits are multiplied by it; 1 for no penalty",
    )


DEFAULT_MAX_STEPS = 2000


class Config(Group):
    """All settings of a run."""

    name: Annotated[RunName, MayChange()] = Field(
        description="name of the run and of its folder: letters and digits of any script, spaces "
        "and . _ + - ( ); the default is the name of the config file"
    )
    data: DataConfig = Field(description="settings of the text")
    model: ModelConfig = Field(RecurrentConfig(), description="settings of the network")
    train: TrainConfig = Field(TrainConfig(), description="settings of training")
    eval: EvalConfig = Field(EvalConfig(), description="settings of evaluation")
    sample: Annotated[SampleConfig, MayChange()] = Field(
        SampleConfig(), description="settings of sampling"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        """Fill in empty groups, and the defaults that depend on another setting."""
        if not isinstance(raw, dict):
            return raw
        raw = raw | {key: {} for key in ("data", "eval", "sample") if raw.get(key, "") is None}
        model = _with_defaults(raw.get("model"), {"kind": "lstm"})
        train = _with_defaults(raw.get("train"), {})
        if isinstance(model, dict) and isinstance(train, dict):
            if model["kind"] == "gpt":
                context = model.get("context", GPTConfig().context)
                train = {"seq_len": context, "batches": "windows"} | train
            if all(train.get(limit) is None for limit in LIMITS):
                train = train | {"max_steps": DEFAULT_MAX_STEPS}
            for part, kind in (("optimizer", "adamw"), ("schedule", "cosine")):
                train = train | {part: _with_defaults(train.get(part), {"kind": kind})}
            if train.get("batches") == "items":
                raw = raw | {"eval": _with_defaults(raw.get("eval"), {"protocol": "items"})}
        return raw | {"model": model, "train": train}

    def problems(self) -> Iterator[str]:
        model, train, data = self.model, self.train, self.data
        if isinstance(model, GPTConfig):
            if train.seq_len != model.context:
                yield (
                    f"train.seq_len: {train.seq_len} is not model.context {model.context}; for a "
                    "gpt they must be equal, so leave train.seq_len out"
                )
            if train.batches == "streams":
                yield "train.batches: a gpt does not support streams; leave it out, or set windows"
        if train.patience:
            counts = "train.patience: it counts evaluations, but"
            if self.eval.every is None:
                yield f"{counts} eval.every is null; set eval.every"
            if data.val_fraction == 0 and not data.val_path:
                yield f"{counts} data.val_fraction is 0; set it above 0"
        if data.documents != "lines":
            needs = "items needs a list of documents; set data.documents to lines"
            if train.batches == "items":
                yield f"train.batches: {needs}"
            elif self.eval.protocol == "items":
                yield f"eval.protocol: {needs}"


def _with_defaults(raw: Any, defaults: dict[str, Any]) -> Any:
    """Add defaults to a mapping. Any other value is left as it is; pydantic reports it."""
    if raw is None:
        return defaults
    if not isinstance(raw, dict):
        return raw
    kind = raw.get("kind", "")
    # pydantic writes the whole repr of a wrong kind into its message, however large it is
    return defaults | raw | ({} if isinstance(kind, str) else {"kind": shown(kind)})
