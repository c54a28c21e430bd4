"""Chooses how a run computes by trying: the device, the precision and the kernels.

On a CPU, `auto` uses charlm's own kernels if they support the model. Otherwise it uses float32, or
bfloat16 if that is clearly faster. A GPU or a kernel is used only after one batch gave there the
loss and gradient that it gives in float32 on the CPU. `auto` takes a GPU only if its steps are
faster.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from charlm.checkpoint.format import Meta
from charlm.config import MuonConfig, SGDConfig, TrainConfig
from charlm.devices import CPU, choose_device, set_threads
from charlm.errors import DeviceError
from charlm.kernels.amx import cpu_has_amx
from charlm.kernels.block import BlockKernel
from charlm.kernels.build import NoKernelError
from charlm.kernels.fused import FusedGPT, FusedLSTM
from charlm.kernels.lstm import LSTMKernel
from charlm.kernels.newton_schulz import NewtonSchulz
from charlm.models import CharModel
from charlm.models.recurrent import Recurrent
from charlm.training.compute import Compute, Precision
from charlm.training.memory import refuse_too_large
from charlm.training.trial import (
    GIVE_UP,
    SHARES,
    LossAndGradient,
    compare,
    fastest,
    first_line,
    loss_and_gradient,
    muon_kernel_error,
    muon_seconds,
    random_batch,
    step_seconds,
    unsupported_reason,
    without_dropout,
)

MARGIN = 1.3  # bfloat16 must be this many times as fast, so that noise does not decide
SMALL_MATRIX = 128 * 128  # numbers of a matrix below which Muon's precision does not matter
MUON_SHARES = (1 / 8, 1 / 2, 1)  # of each side of the largest matrix
KERNEL_TOLERANCE = 0.05  # largest relative error of Muon's factor in bfloat16


def choose_compute(
    train: TrainConfig, model: CharModel, device_name: str, recorded: Meta | None = None
) -> Compute:
    """Choose the device, precision, threads and kernels of a run.

    Sets the number of threads of the process and, on CUDA, TF32.

    Args:
        model: on the CPU.
        device_name: `auto` or the name of a device.
        recorded: the metadata of the checkpoint to resume from. Its choices are made again where
            that is possible.

    Raises:
        ConfigError: the run needs more memory than there is.
        DeviceError: the device is missing, gives wrong numbers, or does not support the precision
            that was asked for.
    """
    return _Chooser(train, model, recorded).choose(device_name)


class _MismatchError(RuntimeError):
    """One batch gave other numbers than in float32 on the CPU."""


class _Chooser:
    def __init__(self, train: TrainConfig, model: CharModel, recorded: Meta | None) -> None:
        self._train, self._model, self._recorded = train, model, recorded
        self._plain = without_dropout(model)
        self._float32 = Compute(CPU, "fp32", set_threads(train.threads))
        self._x, self._y = random_batch(train, self._plain)
        self._notices: list[str] = []

    def choose(self, device_name: str) -> Compute:
        device = choose_device(device_name)
        is_auto = device_name == "auto"
        compute = self._on_cpu() if device == CPU else self._on_gpu(device, is_auto)
        return replace(compute, notices=tuple(self._notices))

    # --- a CPU -------------------------------------------------------------------------------

    def _on_cpu(self) -> Compute:
        refuse_too_large(self._train, self._model.config, self._model.vocab_size)
        compute = self._with_kernels(self._float32)
        if compute.fused is None:
            compute = replace(compute, precision=self._cpu_precision())
        return self._with_muon_precision(compute)

    def _with_kernels(self, compute: Compute) -> Compute:
        """Add those of charlm's own kernels that support this model and are right."""
        was_torch = self._recorded is not None and self._recorded.kernel == "torch"
        if self._train.compile != "auto" or was_torch or not cpu_has_amx():
            return compute
        try:
            if self._train.precision in ("auto", "bf16"):
                compute = self._with_fused_layers(compute)
            if self._is_muon and all(map(NewtonSchulz.supports, self._model.hidden_matrices())):
                compute = self._with_muon_kernel(compute)
        except NoKernelError as error:
            self._notices.append(
                f"charlm's own kernels are not available: {error}; training is slower than this "
                "CPU allows, but the result is as good"
            )
        except _MismatchError as error:
            self._notices.append(f"charlm's kernel is wrong on this CPU and not used: {error}")
        return compute

    def _with_fused_layers(self, compute: Compute) -> Compute:
        """Add the kernel for the model's layers, in bfloat16, if one supports the model.

        Raises:
            NoKernelError: the kernel cannot be built.
            _MismatchError: its numbers are wrong.
        """
        fused: Callable[[CharModel], FusedLSTM | FusedGPT]
        if FusedLSTM.supports(self._model, self._train.batch_size // self._train.grad_accum):
            fused = functools.partial(FusedLSTM, kernel=LSTMKernel())
        elif FusedGPT.supports(self._model):
            fused = functools.partial(FusedGPT, kernel=BlockKernel())
            compute = replace(compute, casts_itself=True)
        else:
            return compute
        return self._verified(replace(compute, precision="bf16", fused=fused))

    def _with_muon_kernel(self, compute: Compute) -> Compute:
        """Add Muon's kernel.

        Raises:
            NoKernelError: the kernel cannot be built.
            _MismatchError: its factor of one matrix differs from that in float32.
        """
        kernel = NewtonSchulz()
        error = muon_kernel_error(kernel, self._largest_matrix) if self._train.verify else 0.0
        if error > KERNEL_TOLERANCE:
            raise _MismatchError(f"Muon's orthogonal factor is {error:.1%} off")
        return replace(compute, newton_schulz=kernel)

    def _cpu_precision(self) -> Precision:
        """Return the precision that was asked for; for auto the faster of float32 and bfloat16."""
        asked, recorded = self._train.precision, self._recorded_on(CPU)
        if asked != "auto":
            if asked != "fp32" and (reason := self._cannot_use(asked)):
                raise DeviceError(
                    f"train.precision {asked}: PyTorch cannot train this {self._model.config.kind} "
                    f"in {asked} on this CPU ({reason}); use fp32 or auto"
                )
            return asked
        if recorded == "fp32" or self._cannot_use("bf16"):
            return "fp32"
        train = self._train.model_copy(update={"optimizer": SGDConfig()})

        def seconds(precision: Precision, share: float) -> float:
            compute = replace(self._float32, precision=precision)
            batch = random_batch(train, self._plain, share)
            return step_seconds(self._plain, train, compute, *batch)

        return _faster(seconds, recorded, SHARES)

    def _cannot_use(self, precision: Precision) -> str | None:
        """Return why PyTorch cannot use a precision for this model on the CPU; None if it can."""
        compute = replace(self._float32, precision=precision)
        return unsupported_reason(self._plain, self._train, compute)

    def _recorded_on(self, device: torch.device) -> Precision | None:
        """Return the recorded precision if the run was on a device of the same type."""
        recorded = self._recorded
        if recorded is None or torch.device(recorded.device).type != device.type:
            return None
        return recorded.precision

    # --- a GPU -------------------------------------------------------------------------------

    def _on_gpu(self, device: torch.device, is_auto: bool) -> Compute:
        """Use the GPU if its numbers are right and, for auto, its steps are faster; else the CPU.

        If half precision gives wrong numbers, auto tries float32 before it gives the GPU up.
        """
        problem = ""
        for precision in self._gpu_precisions(device):
            compute = Compute(device, precision, self._float32.threads)
            try:
                compute = self._verified(self._with_muon_precision(compute))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                problem = first_line(error)
                self._notices.append(f"{device} is not used in {precision}: {problem}")
            else:
                return self._gpu_or_cpu(compute) if is_auto and self._train.verify else compute
        if not is_auto:
            raise DeviceError(
                f"device={device}: its results are wrong: {problem}; use device=cpu, or set "
                "train.verify=false to train without this check"
            )
        return self._on_cpu()

    def _gpu_precisions(self, device: torch.device) -> list[Precision]:
        """Return the precisions to try on a GPU, the best first.

        A recurrent network on CUDA uses fp16 with loss scaling: under autocast PyTorch runs cuDNN's
        layers in fp16, even if bfloat16 is asked for.
        """
        asked = self._train.precision
        if asked != "auto":
            if asked == "bf16" and device.type == "cuda" and not _cuda_has_bf16():
                raise DeviceError(
                    "train.precision bf16: this GPU does not support it; use fp16, fp32 or auto"
                )
            return [asked]
        if recorded := self._recorded_on(device):
            return [recorded]
        if device.type != "cuda":
            return ["fp32"]
        recurrent = isinstance(self._model, Recurrent)
        return ["fp16" if recurrent or not _cuda_has_bf16() else "bf16", "fp32"]

    def _gpu_or_cpu(self, gpu: Compute) -> Compute:
        """Return `gpu`, or how to compute on the CPU if that takes less time for a step."""
        cpu = self._on_cpu()
        gpu_s, cpu_s = (
            step_seconds(self._plain_on(it.device), self._train, it, self._x, self._y)
            for it in (gpu, cpu)
        )
        times = f"{1e3 * gpu_s:.3g} ms a step, and on the CPU {1e3 * cpu_s:.3g} ms"
        if gpu_s <= cpu_s:
            return replace(gpu, checks=(*gpu.checks, f"{gpu.device}: {times}"))
        self._notices.append(f"{gpu.device} is slower than the CPU ({times}), so it is not used")
        return cpu

    # --- both --------------------------------------------------------------------------------

    def _verified(self, compute: Compute) -> Compute:
        """Return `compute`, with a line in `checks`, if one batch gives the right numbers.

        Raises:
            _MismatchError: the numbers differ from those in float32 on the CPU.
        """
        if not self._train.verify:
            return compute
        model = self._plain_on(compute.device)
        result = loss_and_gradient(model, compute, self._x, self._y)
        agrees, text = compare(result, self._reference, compute.precision)
        if not agrees:
            raise _MismatchError(text)
        name = "charlm's kernel" if compute.device == CPU else str(compute.device)
        return replace(compute, checks=(*compute.checks, f"{name}, {compute.precision}: {text}"))

    @functools.cached_property
    def _reference(self) -> LossAndGradient:
        return loss_and_gradient(self._plain, self._float32, self._x, self._y)

    def _plain_on(self, device: torch.device) -> CharModel:
        """Return the model without dropout; for a GPU a copy, so that the one on the CPU stays."""
        return self._plain if device == CPU else copy.deepcopy(self._plain).to(device)

    @property
    def _is_muon(self) -> bool:
        return isinstance(self._train.optimizer, MuonConfig)

    @property
    def _largest_matrix(self) -> tuple[int, int]:
        """The shape of the largest hidden matrix."""
        rows, columns = max(self._model.hidden_matrices(), key=lambda it: it.numel()).shape
        return rows, columns

    def _with_muon_precision(self, compute: Compute) -> Compute:
        """Set the precision in which Muon's products are faster on this device."""
        if not self._is_muon or compute.newton_schulz is not None:
            return compute
        recorded: Precision | None = self._recorded.muon if self._recorded else None
        shape = self._largest_matrix
        if math.prod(shape) < SMALL_MATRIX:
            return replace(compute, muon=recorded or "fp32")
        seconds = functools.partial(muon_seconds, shape, str(compute.device))
        return replace(compute, muon=_faster(seconds, recorded, MUON_SHARES))


def _faster(
    seconds: Callable[[Precision, float], float],
    recorded: Precision | None,
    shares: Sequence[float],
) -> Precision:
    """Return the faster of float32 and bfloat16.

    A new run takes bfloat16 if it is MARGIN times as fast. A resumed run keeps the recorded
    precision unless the other one is GIVE_UP times as fast.

    Args:
        seconds: from a precision and a share of the work, 0 to 1, to the time that it takes.
        shares: see `fastest`.
    """
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    timers = {precision: functools.partial(seconds, precision) for precision in precisions}
    if recorded in timers:
        return fastest(timers, recorded, GIVE_UP, shares)
    return fastest(timers, "fp32", MARGIN, shares)


def _cuda_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
