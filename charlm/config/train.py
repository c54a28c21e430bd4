"""Settings of the loop: batches, limits, optimizer, schedule, arithmetic, saving."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from charlm.config.base import (
    Beta,
    Count,
    Fraction,
    Group,
    MayChange,
    NotNegative,
    Positive,
    Ratio,
    WholeNumber,
    refuse,
)


class SGDConfig(Group):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = Field("sgd", description="stochastic gradient descent")
    lr: Positive = Field(0.5, description="learning rate")
    momentum: Fraction = Field(0.9, description="momentum")
    weight_decay: NotNegative = Field(0.0, description="L2 penalty on matrices")


class RMSPropConfig(Group):
    """RMSProp (Tieleman & Hinton 2012)."""

    kind: Literal["rmsprop"] = Field("rmsprop", description="RMSProp")
    lr: Positive = Field(2e-3, description="learning rate")
    alpha: Beta = Field(0.95, description="decay of the mean of squared gradients")
    eps: Positive = Field(1e-8, description="added to the denominator")
    weight_decay: NotNegative = Field(0.0, description="L2 penalty on matrices")


class AdamConfig(Group):
    """Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""

    kind: Literal["adam", "adamw"] = Field("adamw", description="Adam, or with decoupled decay")
    lr: Positive = Field(2e-3, description="learning rate")
    betas: tuple[Beta, Beta] = Field((0.9, 0.99), description="decay of the two moments")
    eps: Positive = Field(1e-8, description="added to the denominator")
    weight_decay: NotNegative = Field(
        0.0, description="on matrices: L2 penalty for adam, decoupled for adamw"
    )


class MuonConfig(Group):
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for the rest."""

    kind: Literal["muon"] = Field("muon", description="Muon on hidden matrices, AdamW beside")
    lr: Positive = Field(0.02, description="learning rate of Muon")
    momentum: Fraction = Field(0.95, description="momentum of Muon")
    weight_decay: NotNegative = Field(0.0, description="decoupled, on all matrices")
    adamw_lr: Positive = Field(4e-3, description="learning rate of AdamW")
    betas: tuple[Beta, Beta] = Field((0.9, 0.99), description="decay of AdamW's two moments")
    eps: Positive = Field(1e-8, description="added to AdamW's denominator")


class Warmup(Group):
    """What every schedule has."""

    kind: str
    warmup_steps: WholeNumber = Field(0, description="steps of linear rise at the start")


class ConstantSchedule(Warmup):
    """No decay."""

    kind: Literal["constant"] = Field("constant", description="the same rate throughout")


class CosineSchedule(Warmup):
    """Half a cosine (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"] = Field("cosine", description="half a cosine from 1 to min_lr_ratio")
    min_lr_ratio: Fraction = Field(0.1, description="last rate as a share of the first")


class ExponentialSchedule(Warmup):
    """A factor an epoch, as char-rnn has it."""

    kind: Literal["exponential"] = Field("exponential", description="a factor an epoch")
    decay: Ratio = Field(0.97, description="factor for each further epoch")
    decay_after: WholeNumber = Field(10, description="epoch whose end brings the first factor")


class WSDSchedule(Warmup):
    """Warm-up, stable, decay (Hu et al. 2024)."""

    kind: Literal["wsd"] = Field("wsd", description="warm-up, stable, then linear decay")
    decay_fraction: Ratio = Field(
        0.5, description="share of the run, at its end, in which the rate falls"
    )
    min_lr_ratio: Fraction = Field(0.0, description="last rate as a share of the first")


OptimizerConfig = Annotated[
    SGDConfig | RMSPropConfig | AdamConfig | MuonConfig, Field(discriminator="kind")
]
ScheduleConfig = Annotated[
    ConstantSchedule | CosineSchedule | ExponentialSchedule | WSDSchedule,
    Field(discriminator="kind"),
]


class TrainConfig(Group):
    """The loop."""

    batch_size: Count = Field(32, description="sequences an optimizer step")
    seq_len: Count = Field(
        64,
        description="characters a sequence, and how far back the gradient flows; for a gpt always "
        "model.context",
    )
    batches: Literal["streams", "windows", "items"] = Field(
        "streams",
        description="contiguous streams with the state carried on (truncated BPTT), windows at "
        "random places with a fresh state, or the items of a list (data.documents), each with a "
        "fresh state; a gpt takes windows or items",
    )
    fresh_state: Fraction = Field(
        0.0, description="share of the streams, drawn every step, that go on with a fresh state"
    )
    grad_accum: Count = Field(
        1, description="pieces a batch is worked through in, to save memory; divides batch_size"
    )
    grad_clip: NotNegative = Field(1.0, description="largest gradient norm; 0 for no clipping")
    max_steps: Annotated[Count | None, MayChange()] = Field(
        None, description="stop after so many steps; 2000 where no limit is given"
    )
    max_epochs: Annotated[Positive | None, MayChange()] = Field(
        None, description="stop after so many passes over the training text"
    )
    max_seconds: Annotated[Positive | None, MayChange()] = Field(
        None,
        description="stop after so many seconds of training, evaluation not counted; the schedule "
        "then follows the clock, and the run is repeatable only in kind",
    )
    patience: Annotated[Count | None, MayChange()] = Field(
        None, description="stop after so many evaluations in a row without a better loss"
    )
    seed: WholeNumber = Field(1337, description="of every random stream of the run")
    optimizer: OptimizerConfig = Field(AdamConfig(), description="what takes the steps")
    schedule: ScheduleConfig = Field(CosineSchedule(), description="how the rate moves")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of the arithmetic; weights are always float32; auto: on a CPU fp32, or bf16 "
        "where that is measured to be faster; Muon's products choose for themselves",
    )
    compile: Annotated[Literal["auto", "off", "on"], MayChange()] = Field(
        "auto",
        description="on: torch.compile; auto: that for a gpt on CUDA, and on a CPU with AMX our "
        "own kernels for muon, an lstm in bf16, and a gpt without dropout, biases and swiglu",
    )
    verify: Annotated[bool, MayChange()] = Field(
        True,
        description="before the first step on a GPU, or by charlm's own kernels or torch.compile, "
        "compare one batch with float32 on the CPU; and let --device auto take a GPU only where "
        "its steps are faster",
    )
    threads: Annotated[Count | None, MayChange()] = Field(
        None, description="CPU threads; null for one for each CPU and CPU quota, 8 at most"
    )
    expected_minutes: Annotated[Positive | None, MayChange()] = Field(
        None,
        description="about how long the run takes on a laptop; where the first steps show that it "
        "will take ten times as long, one line says so",
    )
    log_every: Annotated[Count, MayChange()] = Field(
        20, description="steps between two records of the training loss"
    )
    save_every: Annotated[Count | None, MayChange()] = Field(
        500, description="steps between two saves of `last`"
    )
    save_minutes: Annotated[Positive | None, MayChange()] = Field(
        5.0, description="minutes between two saves of `last`"
    )
    keep_every: Annotated[Count | None, MayChange()] = Field(
        None, description="steps between two checkpoints kept beside `last` and `best`"
    )
    keep_last: Annotated[Count, MayChange()] = Field(
        3, description="how many of those are kept, the newest"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        warmup = self.schedule.warmup_steps
        too_long = self.max_steps is not None and warmup >= self.max_steps
        refuse(
            f"schedule.warmup_steps: {warmup} is not below train.max_steps {self.max_steps}; the "
            "rate would never reach its height"
            if too_long
            else None,
            "fresh_state: windows and items begin with a fresh state always; it goes with "
            "train.batches streams"
            if self.fresh_state and self.batches != "streams"
            else None,
            f"grad_accum: {self.grad_accum} does not divide train.batch_size {self.batch_size}"
            if self.batch_size % self.grad_accum
            else None,
        )
        return self
