"""How a run computes: its device, precision, threads and kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from charlm.checkpoint.format import Meta
from charlm.kernels.muon import MuonKernel
from charlm.models import CharModel
from charlm.models.base import Forward, State

Precision = Literal["fp32", "bf16", "fp16"]
TORCH = "torch"  # the name of PyTorch, where those of kernels are
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device, a precision, a number of CPU threads, and the kernels.

    Attributes:
        muon: the precision of Muon's products, bf16 or fp32. Other optimizers ignore it.
        kernel: what computes the layers: `torch`, or the variant of charlm's own kernels.
        muon_kernel: the same for Muon. Bits differ between any two.
        fused: makes a forward pass by charlm's own kernel from a model; None for PyTorch's.
        fused_muon: charlm's own kernel for Muon; None for PyTorch's products.
        checks: a line for each comparison with float32 on the CPU that was passed.
        notices: a line for each thing that a user should know.
    """

    device: torch.device
    precision: Precision
    threads: int
    muon: Precision = "bf16"
    kernel: str = TORCH
    muon_kernel: str = TORCH
    fused: Callable[[CharModel], Forward] | None = None
    fused_muon: MuonKernel | None = None
    checks: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for the forward pass of a training step."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])


@dataclass(frozen=True)
class Choices:
    """What was chosen for a run: the fields of Compute that a checkpoint records."""

    device: str
    precision: Precision
    threads: int
    muon: Precision
    kernel: str
    muon_kernel: str | None

    @classmethod
    def of(cls, it: Compute | Meta) -> Choices:
        """Return those of a run or a checkpoint."""
        return cls(str(it.device), it.precision, it.threads, it.muon, it.kernel, it.muon_kernel)


def kernel_forward(model: CharModel, compute: Compute) -> Forward | None:
    """Return the forward pass of charlm's own kernel without gradients; None if there is none."""
    if compute.fused is None:
        return None
    forward = compute.fused(model)

    def computed(x: Tensor, state: State | None) -> tuple[Tensor, State]:
        with compute.autocast():
            return forward(x, state)

    return computed


def forward_of(model: CharModel, compute: Compute, keep_state: bool = True) -> Forward:
    """Return the forward pass of a training step.

    Args:
        model: on `compute`'s device.
        keep_state: whether the state after the last character is needed.
    """
    if compute.fused is not None:
        return compute.fused(model)
    return functools.partial(model, keep_state=keep_state)
