"""A checkpoint: one .safetensors file that needs nothing else.

Tensors, by the beginning of their names:
    model.      the weights
    optimizer.  what the optimizers remember
    state.      what the model remembers of the text, one group for each piece of a batch
    rng.        the generators behind dropout, `rng.cpu` and `rng.cuda`
Metadata, under the key `charlm`: a JSON object, see `Meta`.

The file layout (an 8-byte little-endian length, a JSON header, the tensors' bytes) is that of
github.com/huggingface/safetensors. It holds no code, so a stranger's file is safe to open.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from charlm.config import Config
from charlm.data.vocab import UNKNOWN, Vocab

FORMAT = 2  # the version of this layout; a reader refuses a newer one
LAST, BEST = "last.safetensors", "best.safetensors"


class Progress(BaseModel):
    """How far a run has come: all that changes and is not a tensor."""

    step: int = 0
    elapsed_s: float = 0.0  # training only, evaluation and saving not counted
    skipped_steps: int = 0
    bad_in_a_row: int = 0
    best_loss: float | None = None  # nats per character on the validation split
    best_step: int | None = None
    evals_since_best: int = 0
    evaluated_at: int | None = None  # the last step at which each of these was done
    sampled_at: int | None = None
    finished: bool = False
    logged_at: int = 0  # the step at which the training loss was last recorded
    logged_elapsed_s: float = 0.0
    loss_sum: float = 0.0  # of the steps since
    loss_count: int = 0
    scaler: dict[str, int | float] = {}  # of fp16's gradient scaling


class CorpusInfo(BaseModel):
    """The text a run was trained on."""

    model_config = ConfigDict(frozen=True)

    source: str
    chars: int
    sha256: str  # as Corpus has it


class Meta(BaseModel):
    """All that a checkpoint says besides its tensors."""

    model_config = ConfigDict(frozen=True)

    format: int
    config: Config
    vocab: str  # every character, in the order of ids
    corpus: CorpusInfo
    parameters: int
    progress: Progress
    log_sizes: dict[str, int]  # bytes written to the run's logs so far
    device: str
    precision: Literal["fp32", "bf16", "fp16"]
    threads: int
    kernel: str = "torch"  # see Compute
    muon: Literal["fp32", "bf16"]  # see Compute
    versions: dict[str, str]

    @field_validator("vocab")
    @classmethod
    def _check_vocab(cls, vocab: str) -> str:
        if not vocab or len(set(vocab)) < len(vocab):
            raise ValueError("it is empty, or a character stands twice")
        return vocab

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        data = self.config.data
        whole = self.vocab == Vocab.of_bytes().chars
        if (data.unit == "byte" and not whole) or (data.is_limited and UNKNOWN not in self.vocab):
            raise ValueError("the vocabulary is not of the kind that the config has")
        return self

    @property
    def vocabulary(self) -> Vocab:
        """The characters the model knows."""
        data = self.config.data
        return Vocab(self.vocab, limited=data.is_limited, unit=data.unit)
