"""How a run computes: device, precision, threads, and whose code does the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from charlm.kernels.block import BlockKernel
from charlm.kernels.lstm import LSTMKernel
from charlm.kernels.newton_schulz import NewtonSchulz
from charlm.models import CharModel, State
from charlm.models.fused import FusedGPT, FusedLSTM
from charlm.models.gpt import GPT
from charlm.models.recurrent import Recurrent

Precision = Literal["fp32", "bf16", "fp16"]
Forward = Callable[[Tensor, State | None], tuple[Tensor, State]]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, a precision and a number of CPU threads.

    Attributes:
        muon: the precision of Muon's products, bf16 or fp32; without meaning for other optimizers.
        lstm, block, newton_schulz: charlm's own kernels, where they are used.
        checks: a line for each comparison with float32 on the CPU that it passed.
        notices: a line for each thing that a user should know.
    """

    device: torch.device
    precision: Precision
    threads: int
    muon: Precision = "bf16"
    lstm: LSTMKernel | None = None
    block: BlockKernel | None = None
    newton_schulz: NewtonSchulz | None = None
    checks: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def kernel(self) -> str:
        """Whose code computes a layer, amx or torch; the last bits differ between the two."""
        return "amx" if self.lstm or self.block or self.newton_schulz else "torch"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a training step's forward pass runs."""
        if self.precision == "fp32" or self.block is not None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])


def forward_of(model: CharModel, compute: Compute) -> Forward:
    """The forward pass of a model on `compute`'s device: by charlm's own kernel, or PyTorch's."""
    if compute.lstm is not None and isinstance(model, Recurrent):
        return FusedLSTM(model, compute.lstm)
    if compute.block is not None and isinstance(model, GPT):
        return FusedGPT(model, compute.block)
    return model
