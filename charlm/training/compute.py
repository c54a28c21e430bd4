"""Where and how the arithmetic is done: device, precision, threads, torch.compile."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from charlm.config import MuonConfig, TrainConfig
from charlm.errors import DeviceError
from charlm.kernels.amx import cpu_has_amx
from charlm.kernels.block import BlockKernel
from charlm.kernels.compiler import NoKernelError
from charlm.kernels.lstm import LSTMKernel
from charlm.kernels.newton_schulz import NewtonSchulz
from charlm.models import CharModel, State
from charlm.models.fused import FusedGPT, FusedLSTM
from charlm.models.gpt import GPT
from charlm.models.recurrent import Recurrent

Precision = Literal["fp32", "bf16", "fp16"]
Forward = Callable[[Tensor, State | None], tuple[Tensor, State]]
MAX_THREADS = 8  # beyond that, layers of a few hundred units wait for each other more than they win


@dataclass(frozen=True)
class Compute:
    """A device, a precision and a number of CPU threads."""

    device: torch.device
    precision: Precision
    threads: int
    lstm: LSTMKernel | None = None  # our own kernels, where they serve
    block: BlockKernel | None = None
    newton_schulz: NewtonSchulz | None = None
    notices: tuple[str, ...] = ()

    @property
    def kernel(self) -> str:
        """Whose code computes a layer; another's differs in the last bits."""
        return "amx" if self.lstm or self.block or self.newton_schulz else "torch"

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a training step's forward pass runs."""
        if self.precision == "fp32" or self.block is not None:
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)


def choose_compute(train: TrainConfig, model: CharModel, device_name: str) -> Compute:
    """The device, precision and threads of a run; sets the process's threads and TF32.

    Raises:
        DeviceError: the device is not there, or cannot do the precision asked for.
    """
    device = choose_device(device_name)
    compute = Compute(device, _choose_precision(train, model, device), set_threads(train.threads))
    if compute.precision == "fp16" and device.type == "cpu":
        _probe(model, compute)
    if train.compile != "auto" or device.type != "cpu" or not cpu_has_amx():
        return compute
    return _with_kernels(compute, train, model)


def _with_kernels(compute: Compute, train: TrainConfig, model: CharModel) -> Compute:
    """With those of our own kernels for AMX that can do this model; a GPT then is in bf16, which
    without them is no faster."""
    rows = train.batch_size // train.grad_accum
    lstm = compute.precision == "bf16" and FusedLSTM.fits(model, rows)
    block = train.precision in ("auto", "bf16") and FusedGPT.fits(model)
    muon = isinstance(train.optimizer, MuonConfig)
    muon = muon and all(map(NewtonSchulz.fits, model.hidden_matrices()))
    try:
        return replace(
            compute,
            precision="bf16" if block else compute.precision,
            lstm=LSTMKernel() if lstm else None,
            block=BlockKernel() if block else None,
            newton_schulz=NewtonSchulz() if muon else None,
        )
    except NoKernelError as error:
        note = f"training takes longer than it must on this CPU: {error}; the result is as good"
        return replace(compute, notices=(note,))


def choose_device(name: str) -> torch.device:
    """`auto` is cuda, else mps, else cpu. On cuda, float32 products are TF32 from then on.

    Raises:
        DeviceError: no such device on this machine.
    """
    if name == "auto":
        there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, is_there in there.items() if is_there), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name}: choose auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            has = f"there are {count}, counted from 0" if count else "PyTorch finds no CUDA GPU"
            raise DeviceError(f"--device {name}: {has}; use --device auto or cpu")
        torch.set_float32_matmul_precision("high")  # TF32 in float32 products
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"--device {name}: PyTorch finds no Apple GPU; use --device auto or cpu")
    elif device.type not in ("cpu", "mps"):
        raise DeviceError(f"--device {name}: choose auto, cpu, cuda, cuda:N or mps")
    return device


def set_threads(wanted: int | None) -> int:
    """Set and return the number of CPU threads; None is one a core this process may use."""
    if wanted is None:
        wanted = min(torch.get_num_threads(), count_cores(), MAX_THREADS)
    torch.set_num_threads(wanted)
    return wanted


def count_cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _choose_precision(train: TrainConfig, model: CharModel, device: torch.device) -> Precision:
    """`auto` is bf16, or fp16 on older GPUs, where it is known to be faster; else fp32.

    A recurrent net on a GPU is in fp16 always: PyTorch's autocast runs cuDNN's layers in nothing
    else, also when told bfloat16, and with fp16 goes the scaling of the loss that it needs.
    """
    if train.precision != "auto":
        if train.precision == "bf16" and device.type == "cuda" and not _cuda_has_bf16():
            raise DeviceError("train.precision bf16: this GPU has none; use fp16, fp32 or auto")
        return train.precision
    if device.type == "cuda":
        return "bf16" if _cuda_has_bf16() and not isinstance(model, Recurrent) else "fp16"
    if device.type == "cpu" and model.bf16_pays_on_cpu and _cpu_has_bf16():
        return "bf16"
    return "fp32"


def _probe(model: CharModel, compute: Compute) -> None:
    """Half precision is not in every CPU, nor in every layer of PyTorch for it."""
    try:
        with torch.random.fork_rng(devices=[]), compute.autocast():
            model(torch.zeros(2, 2, dtype=torch.long), None)
    except RuntimeError as error:
        raise DeviceError(
            f"train.precision {compute.precision}: this CPU cannot do it for this model; use bf16, "
            "fp32 or auto"
        ) from error


def _cuda_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware; no, where PyTorch cannot tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict[str, object])()
    return bool(capabilities.get("avx512_bf16", False))


def compile_forward(
    model: CharModel, train: TrainConfig, compute: Compute, ids: Tensor, carries_state: bool
) -> tuple[Forward, str | None]:
    """The model's forward pass: by our own kernel if `compute` has one, else compiled if
    `train.compile` says so and it works on `ids` (B, T).

    Where training carries a state, it must work with one, too.

    Returns:
        the forward pass, and, where compiling failed, a line that says so.
    """
    if compute.lstm is not None and isinstance(model, Recurrent):
        return FusedLSTM(model, compute.lstm), None
    if compute.block is not None and isinstance(model, GPT):
        return FusedGPT(model, compute.block), None
    pays = compute.device.type == "cuda" and model.compile_pays_on_cuda
    if train.compile == "off" or (train.compile == "auto" and not pays):
        return model, None
    devices = [compute.device] if compute.device.type == "cuda" else []
    try:
        compiled: Forward = torch.compile(model if carries_state else _without_state(model))
        with torch.random.fork_rng(devices=devices), compute.autocast():
            logits, state = compiled(ids, None)
            if carries_state:
                logits = logits + compiled(ids, tuple(tensor.detach() for tensor in state))[0]
            torch.autograd.backward(logits.sum())
    except Exception as error:  # compilers fail in many ways; if it is the model, eager fails too
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return model, f"torch.compile failed, going on without it: {reason[0]:.200}"
    finally:
        model.zero_grad(set_to_none=True)
    return compiled, None


def _without_state(model: CharModel) -> Forward:
    """The forward pass with no state after it: compiled code would hand back the keys and values of
    a GPT, and run backward through them, for nothing."""

    def forward(ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        return model(ids, state)[0], ()

    return forward
