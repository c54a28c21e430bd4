"""How a run computes: device, precision, threads, and whose code does the forward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from charlm.kernels.newton_schulz import NewtonSchulz
from charlm.models import CharModel, State

Precision = Literal["fp32", "bf16", "fp16"]
Forward = Callable[[Tensor, State | None], tuple[Tensor, State]]
Fused = Callable[[CharModel], Forward]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, a precision and a number of CPU threads.

    Attributes:
        muon: the precision of Muon's products, bf16 or fp32; without meaning for other optimizers.
        fused: makes the forward pass of a model by charlm's own kernel, where one is used.
        casts_itself: whether that kernel converts its numbers itself, without autocast.
        newton_schulz: charlm's own kernel for Muon, where it is used.
        checks: a line for each comparison with float32 on the CPU that it passed.
        notices: a line for each thing that a user should know.
    """

    device: torch.device
    precision: Precision
    threads: int
    muon: Precision = "bf16"
    fused: Fused | None = None
    casts_itself: bool = False
    newton_schulz: NewtonSchulz | None = None
    checks: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def kernel(self) -> str:
        """Whose code computes a layer, amx or torch; the last bits differ between the two."""
        return "amx" if self.fused or self.newton_schulz else "torch"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a training step's forward pass runs."""
        if self.precision == "fp32" or self.casts_itself:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])


def forward_of(model: CharModel, compute: Compute, keep_state: bool = True) -> Forward:
    """The forward pass of a training step for a model on `compute`'s device.

    Args:
        keep_state: whether the state after the last character is wanted.
    """
    if compute.fused is not None:
        return compute.fused(model)
    return functools.partial(model, keep_state=keep_state)
