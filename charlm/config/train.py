"""Settings of training: batches, limits, optimizer, schedule, computation and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from charlm.config.base import (
    Beta,
    Epsilon,
    Fraction,
    Group,
    Length,
    MayChange,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Ratio,
    Seed,
    Threads,
)

LIMITS = ("max_steps", "max_epochs", "max_seconds")  # of a run; the first one reached ends it
L2 = Annotated[NonNegativeFloat, Field(description="weight decay (L2 penalty); for matrices only")]


class SGDConfig(Group):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = Field("sgd", description="stochastic gradient descent with momentum")
    lr: PositiveFloat = Field(0.5, description="learning rate")
    momentum: Fraction = Field(0.9, description="momentum factor")
    weight_decay: L2 = 0.0


class RMSPropConfig(Group):
    """RMSProp (Tieleman & Hinton 2012)."""

    kind: Literal["rmsprop"] = Field("rmsprop", description="RMSProp")
    lr: PositiveFloat = Field(2e-3, description="learning rate")
    alpha: Beta = Field(0.95, description="decay rate of the running mean of squared gradients")
    eps: Epsilon = Field(1e-8, description="term added to the denominator for numerical stability")
    weight_decay: L2 = 0.0


class AdamConfig(Group):
    """Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""

    kind: Literal["adam", "adamw"] = Field(
        "adamw", description="Adam, or AdamW with decoupled weight decay"
    )
    lr: PositiveFloat = Field(2e-3, description="learning rate")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99),
        description="decay rates of the running means of the gradient and of its square",
    )
    eps: Epsilon = Field(1e-8, description="term added to the denominator for numerical stability")
    weight_decay: NonNegativeFloat = Field(
        0.0,
        description="weight decay, an L2 penalty for adam and decoupled for adamw; for matrices "
        "only",
    )


class MuonConfig(Group):
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for all other parameters."""

    kind: Literal["muon"] = Field(
        "muon", description="Muon for the hidden matrices, AdamW for all other parameters"
    )
    lr: PositiveFloat = Field(0.02, description="learning rate of Muon")
    momentum: Fraction = Field(0.95, description="momentum factor of Muon")
    weight_decay: NonNegativeFloat = Field(
        0.0, description="decoupled weight decay of Muon and of AdamW; for matrices only"
    )
    adamw_lr: PositiveFloat = Field(4e-3, description="learning rate of AdamW")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99),
        description="decay rates of AdamW's running means of the gradient and of its square",
    )
    eps: Epsilon = Field(
        1e-8, description="term added to AdamW's denominator for numerical stability"
    )


class Warmup(Group):
    """The settings that all schedules share."""

    kind: str
    warmup_steps: NonNegativeInt = Field(
        0,
        description="number of steps at the start in which the learning rate rises linearly; if "
        "the run is not longer than that, a tenth of its steps",
    )


class ConstantSchedule(Warmup):
    """A constant learning rate."""

    kind: Literal["constant"] = Field(
        "constant", description="warm-up, then a constant learning rate"
    )


class CosineSchedule(Warmup):
    """Half a cosine (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"] = Field(
        "cosine", description="warm-up, then decay along half a cosine to min_lr_ratio"
    )
    min_lr_ratio: Fraction = Field(
        0.1, description="final learning rate, as a fraction of the learning rate after the warm-up"
    )


class ExponentialSchedule(Warmup):
    """A constant factor per epoch, as in char-rnn."""

    kind: Literal["exponential"] = Field(
        "exponential", description="warm-up, then decay by a constant factor per epoch"
    )
    decay: Ratio = Field(0.97, description="factor of the learning rate per epoch")
    decay_after: NonNegativeInt = Field(
        10, description="number of epochs before the learning rate is first multiplied by decay"
    )


class WSDSchedule(Warmup):
    """Warm-up, stable, decay (Hu et al. 2024)."""

    kind: Literal["wsd"] = Field(
        "wsd", description="warm-up, then a constant learning rate, then linear decay"
    )
    decay_fraction: Ratio = Field(
        0.5, description="length of the decay, as a fraction of the steps after the warm-up"
    )
    min_lr_ratio: Fraction = Field(
        0.0, description="final learning rate, as a fraction of the learning rate after the warm-up"
    )


OptimizerConfig = Annotated[
    SGDConfig | RMSPropConfig | AdamConfig | MuonConfig, Field(discriminator="kind")
]
ScheduleConfig = Annotated[
    ConstantSchedule | CosineSchedule | ExponentialSchedule | WSDSchedule,
    Field(discriminator="kind"),
]


class TrainConfig(Group):
    """Settings of training."""

    batch_size: Length = Field(32, description="number of sequences per optimizer step")
    seq_len: Length = Field(
        64,
        description="number of characters per sequence, which is also the length of truncated "
        "backpropagation; for a gpt it is always model.context",
    )
    batches: Literal["streams", "windows", "items"] = Field(
        "streams",
        description="streams: contiguous streams, with the state carried over from step to step "
        "(truncated BPTT); windows: windows at random positions, each with a fresh state; items: "
        "single documents (needs data.documents lines), each with a fresh state; a gpt supports "
        "windows (its default) and items",
    )
    fresh_state: Fraction = Field(
        0.0,
        description="probability that a stream starts a step with a fresh state instead of the "
        "carried state; needs train.batches streams",
    )
    grad_accum: Length = Field(
        1,
        description="number of parts into which a batch is split; they are processed one after the "
        "other, which needs less memory; must divide batch_size",
    )
    grad_clip: NonNegativeFloat = Field(
        1.0, description="maximum norm of the gradient; 0 for no clipping"
    )
    max_steps: Annotated[PositiveInt | None, MayChange()] = Field(
        None,
        description="maximum number of optimizer steps; 2000 if max_steps, max_epochs and "
        "max_seconds are all null",
    )
    max_epochs: Annotated[PositiveFloat | None, MayChange()] = Field(
        None, description="maximum number of passes over the training text; null for no limit"
    )
    max_seconds: Annotated[PositiveFloat | None, MayChange()] = Field(
        None,
        description="maximum duration of the run in seconds, with evaluation, samples and the "
        "start of the program; the schedule then depends on the time, so a repeated run gives "
        "similar but not equal results; null for no limit",
    )
    patience: Annotated[PositiveInt | None, MayChange()] = Field(
        None,
        description="training stops after this number of evaluations in a row without a lower "
        "loss; null for no early stopping",
    )
    seed: Seed = Field(1337, description="seed of all random numbers of the run")
    optimizer: OptimizerConfig = Field(AdamConfig(), description="settings of the optimizer")
    schedule: ScheduleConfig = Field(
        CosineSchedule(), description="settings of the learning rate schedule"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="precision of the computation; weights are always float32; auto on a CPU: "
        "fp32, or bf16 if it is measured to be faster; auto on CUDA: fp16 or bf16 if the results "
        "are correct, else fp32; the precision of Muon's matrix products is chosen separately",
    )
    compile: Annotated[Literal["auto", "off", "on"], MayChange()] = Field(
        "auto", description="on: use torch.compile; off: do not; auto: use it for a gpt on CUDA"
    )
    kernels: Annotated[Literal["auto", "off", "on"], MayChange()] = Field(
        "auto",
        description="charlm's own kernels in C for training on a CPU: off: use PyTorch; on: use "
        "the kernels; auto: use what is faster, measured once on each machine",
    )
    verify: Annotated[bool, MayChange()] = Field(
        True,
        description="true: a GPU or one of charlm's kernels is used only if its results for one "
        "batch agree with float32 on the CPU, torch.compile only if they agree with the model that "
        "is not compiled, and --device auto uses a GPU only if its steps are also faster than on "
        "the CPU; false: nothing is compared",
    )
    threads: Annotated[Threads | None, MayChange()] = Field(
        None,
        description="number of CPU threads; null for the number of CPUs that the process may use, "
        "but at most 8",
    )
    expected_minutes: Annotated[PositiveFloat | None, MayChange()] = Field(
        None,
        description="expected duration of the run on a laptop, in minutes; a message is printed if "
        "the first steps show that the run takes 10 times as long or longer; null for no check",
    )
    log_every: Annotated[PositiveInt, MayChange()] = Field(
        20, description="number of steps between two records of the training loss"
    )
    save_every: Annotated[PositiveInt | None, MayChange()] = Field(
        500,
        description="number of steps between two saves of the checkpoint `last`; null to save by "
        "time only",
    )
    save_minutes: Annotated[PositiveFloat | None, MayChange()] = Field(
        5.0,
        description="number of minutes between two saves of the checkpoint `last`; null to save by "
        "steps only",
    )
    keep_every: Annotated[PositiveInt | None, MayChange()] = Field(
        None,
        description="number of steps between two checkpoints that are kept in addition to `last` "
        "and `best`; null for none",
    )
    keep_last: Annotated[PositiveInt, MayChange()] = Field(
        3, description="maximum number of keep_every checkpoints; older ones are deleted"
    )

    def problems(self) -> Iterator[str]:
        if self.fresh_state and self.batches != "streams":
            yield (
                "fresh_state: this setting needs train.batches streams, but train.batches is "
                f"{self.batches}; leave it out"
            )
        if self.batch_size % self.grad_accum:
            yield (
                f"grad_accum: {self.grad_accum} does not divide train.batch_size "
                f"{self.batch_size}; set a divisor"
            )
