"""A checkpoint: one .safetensors file that needs nothing else.

Tensors, by the prefixes of their names:
    model.      the weights
    optimizer.  the states of the optimizers
    state.      the state of the model, one group for each part of a batch (train.grad_accum)
    rng.        the states of the random generators for dropout, `rng.cpu` and `rng.cuda`; those of
                process 1 are `rng.cpu.1` and `rng.cuda.1`, and so on
Metadata, under the key `charlm`: a JSON object, see `Meta`.

The layout of the file is that of github.com/huggingface/safetensors, see charlm.checkpoint.header.
It holds no code, so a file from an unknown source is safe to open.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from charlm.config import Config
from charlm.data.vocab import UNKNOWN, Vocab

FORMAT = 2  # a reader refuses newer formats, and upgrades older ones
LAST, BEST = "last.safetensors", "best.safetensors"


# Values in a file of unknown origin are bounded, so that computing with them cannot overflow.
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Loss = Annotated[float, Field(ge=-1e300, le=1e300)]
Word = Annotated[str, Field(max_length=200)]


class Progress(BaseModel):
    """The progress of a run: everything that changes and is not a tensor."""

    model_config = ConfigDict(allow_inf_nan=False)

    step: Count = 0
    elapsed_s: Seconds = 0.0  # training only, without evaluation and saving
    wall_s: Seconds = 0.0  # with everything, from the start of the command; resumed runs are added
    skipped_steps: Count = 0
    bad_in_a_row: Count = 0
    best_loss: Loss | None = None  # nats per character on the validation split
    best_step: Count | None = None
    evals_since_best: Count = 0
    evaluated_at: Count | None = None  # the step of the last evaluation
    evaluated_s: Seconds = 0.0  # and when that was, as `Pace.seconds` counts
    eval_chars: Count | None = None  # the number of characters of an evaluation, if it was chosen
    sampled_at: Count | None = None  # the step of the last sample
    sampled_s: Seconds = 0.0
    finished: bool = False
    logged_at: Count = 0  # the step at which the training loss was last recorded
    logged_elapsed_s: Seconds = 0.0
    loss_sum: Loss = 0.0  # over the steps since then
    loss_count: Count = 0  # the number of those steps
    scaler: dict[  # the state of fp16's gradient scaling: whole numbers stay whole
        Word,
        Annotated[StrictInt, Field(ge=0, lt=1 << 31)]
        | Annotated[StrictFloat, Field(gt=0, le=1e38)],
    ] = {}

    @model_validator(mode="after")
    def _check_best(self) -> Self:
        if (self.best_loss is None) != (self.best_step is None):
            raise ValueError("best_loss and best_step belong together")
        self.wall_s = max(self.wall_s, self.elapsed_s)  # older files have no wall_s
        return self


class CorpusInfo(BaseModel):
    """The text a run was trained on."""

    model_config = ConfigDict(frozen=True)

    source: str
    chars: Count
    sha256: Word  # as `Corpus.sha256`


class Meta(BaseModel):
    """The metadata of a checkpoint: everything but its tensors."""

    model_config = ConfigDict(frozen=True)

    format: int
    config: Config
    vocab: str  # every character, in the order of the ids
    corpus: CorpusInfo
    parameters: Count
    progress: Progress
    log_sizes: dict[Word, Count]  # bytes of the run's log files so far
    device: str = Field(pattern=r"^(cpu|(cuda|mps)(:(0|[1-9][0-9]?))?)$")
    precision: Literal["fp32", "bf16", "fp16"]
    threads: Annotated[Count, Field(ge=1)]
    kernel: Word = "torch"  # see Compute
    muon_kernel: Word | None = None  # see Compute; None in files written before it was recorded
    muon: Literal["fp32", "bf16"]  # see Compute
    processes: Annotated[Count, Field(ge=1)] = 1  # how many trained it; see charlm.processes
    launched_by: tuple[Word, ...] = ()  # commands torchrun; see charlm.processes
    versions: dict[Word, Word]

    @field_validator("vocab")
    @classmethod
    def _check_vocab(cls, vocab: str) -> str:
        if not vocab or len(set(vocab)) < len(vocab):
            raise ValueError("it is empty, or has a character twice")
        return vocab

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        data = self.config.data
        whole = self.vocab == Vocab.of_bytes().chars
        if (data.unit == "byte" and not whole) or (data.is_limited and UNKNOWN not in self.vocab):
            raise ValueError(
                "the vocabulary does not match data.unit, vocab_min_count and vocab_size"
            )
        return self

    @property
    def vocabulary(self) -> Vocab:
        """The characters that the model knows."""
        data = self.config.data
        return Vocab(self.vocab, limited=data.is_limited, unit=data.unit)
