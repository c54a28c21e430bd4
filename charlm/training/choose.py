"""Choosing how a run computes, by trying: device, precision, and whose code.

auto is, on a CPU, charlm's own kernels where they fit the model; else float32, unless bfloat16 is
clearly faster. A GPU, and each kernel, is believed only after one batch gave there what it gives in
float32 on the CPU; and auto takes a GPU only where its steps are faster.
"""

from __future__ import annotations

import functools
import math
import time
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
from charlm.kernels.newton_schulz import Moved, NewtonSchulz
from charlm.models import CharModel
from charlm.models.recurrent import Recurrent
from charlm.training.compute import DTYPES, Compute, Fused, Precision
from charlm.training.muon import orthogonal
from charlm.training.trial import (
    HOPELESS,
    SHARES,
    Look,
    compare,
    fastest,
    look,
    random_batch,
    step_seconds,
    without_dropout,
)

MARGIN = 1.3  # bfloat16 must be this many times as fast, so that noise does not decide
SMALL = 128 * 128  # numbers of a matrix whose factor takes no time worth measuring
ENOUGH_S = 0.02  # seconds for which a short product is repeated
KERNEL_TOLERANCE = 0.05  # of Newton-Schulz in bfloat16 beside float32, relative


def choose_compute(
    train: TrainConfig, model: CharModel, device_name: str, recorded: Meta | None = None
) -> Compute:
    """Device, precision, threads and kernels of a run; sets the process's threads and TF32.

    Args:
        model: on the CPU.
        recorded: of the checkpoint to go on from, whose choices are made again where they can be.

    Raises:
        DeviceError: the device is missing, gives wrong numbers, or cannot do the precision asked
            for.
    """
    return _Chooser(train, model, recorded).choose(device_name)


class _WrongError(RuntimeError):
    """One batch gave other numbers than in float32 on the CPU."""


class _Chooser:
    def __init__(self, train: TrainConfig, model: CharModel, recorded: Meta | None) -> None:
        self._train, self._model, self._recorded = train, model, recorded
        self._plain = without_dropout(model)
        self._threads = set_threads(train.threads)
        self._x, self._y = random_batch(train, self._plain)
        self._notices: list[str] = []

    def choose(self, device_name: str) -> Compute:
        device = choose_device(device_name)
        is_auto = device_name == "auto"
        compute = self._on_cpu() if device == CPU else self._on_gpu(device, is_auto)
        return replace(compute, notices=tuple(self._notices))

    # --- a CPU -------------------------------------------------------------------------------

    def _on_cpu(self) -> Compute:
        compute = self._with_kernels(Compute(CPU, "fp32", self._threads))
        if compute.fused is None:
            compute = replace(compute, precision=self._cpu_precision())
        return self._with_muon(compute)

    def _with_kernels(self, compute: Compute) -> Compute:
        """With those of our own kernels, in bfloat16, that support this model and are right."""
        was_torch = self._recorded is not None and self._recorded.kernel == "torch"
        if self._train.compile != "auto" or was_torch or not cpu_has_amx():
            return compute
        rows = self._train.batch_size // self._train.grad_accum
        takes_bf16 = self._train.precision in ("auto", "bf16")
        muon = isinstance(self._train.optimizer, MuonConfig)
        muon = muon and all(map(NewtonSchulz.supports, self._model.hidden_matrices()))
        try:
            if takes_bf16 and FusedLSTM.supports(self._model, rows):
                fused: Fused = functools.partial(FusedLSTM, kernel=LSTMKernel())
                compute = self._verified(replace(compute, precision="bf16", fused=fused))
            if takes_bf16 and FusedGPT.supports(self._model):
                fused = functools.partial(FusedGPT, kernel=BlockKernel())
                with_block = replace(compute, precision="bf16", fused=fused, casts_itself=True)
                compute = self._verified(with_block)
            if muon:
                compute = self._with_muon_kernel(compute, NewtonSchulz())
        except NoKernelError as error:
            self._notices.append(
                f"training takes longer than it must on this CPU: {error}; the result is as good"
            )
        except _WrongError as error:
            self._notices.append(f"charlm's kernel is wrong on this CPU and not used: {error}")
        return compute

    def _with_muon_kernel(self, compute: Compute, kernel: NewtonSchulz) -> Compute:
        """With Muon's kernel, if its factor of one matrix agrees with float32."""
        off = kernel_error(kernel, self._largest_matrix()) if self._train.verify else 0.0
        if off > KERNEL_TOLERANCE:
            raise _WrongError(f"Muon's orthogonal factor is {off:.1%} off")
        return replace(compute, newton_schulz=kernel)

    def _cpu_precision(self) -> Precision:
        """What was asked for, if PyTorch can do it; else the faster of float32 and bfloat16."""
        asked = self._train.precision
        if asked != "auto":
            if asked != "fp32" and (reason := self._failure(asked)):
                raise DeviceError(
                    f"train.precision {asked}: PyTorch cannot train this {self._kind} in {asked} "
                    f"on this CPU ({reason}); use fp32 or auto"
                )
            return asked
        was_bf16 = self._recorded_on(CPU) == "bf16"
        if self._recorded_on(CPU) == "fp32" or self._failure("bf16"):
            return "fp32"
        train = self._train.model_copy(update={"optimizer": SGDConfig()})

        def way(precision: Precision) -> Callable[[float], float]:
            compute = Compute(CPU, precision, self._threads)
            return lambda share: step_seconds(
                self._plain, train, compute, *random_batch(train, self._plain, share)
            )

        return _faster(way, "bf16", HOPELESS) if was_bf16 else _faster(way, "fp32", MARGIN)

    def _failure(self, precision: Precision) -> str | None:
        """Why PyTorch cannot compute this model in a precision on the CPU; None where it can."""
        x, y = random_batch(self._train, self._plain, 0)
        try:
            look(self._plain, Compute(CPU, precision, self._threads), x, y)
        except RuntimeError as error:
            return _first_line(error)
        return None

    def _recorded_on(self, device: torch.device) -> Precision | None:
        """The precision that the run had before, if that was on such a device."""
        recorded = self._recorded
        if recorded is None or torch.device(recorded.device).type != device.type:
            return None
        return recorded.precision

    # --- a GPU -------------------------------------------------------------------------------

    def _on_gpu(self, device: torch.device, is_auto: bool) -> Compute:
        """The device, if its numbers are right and, for auto, its steps are faster; else the CPU.

        Half precision that auto chose and that is wrong is given up for float32 first.
        """
        problem = ""
        for precision in self._gpu_precisions(device):
            try:
                there = self._verified(self._with_muon(Compute(device, precision, self._threads)))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                problem = _first_line(error)
                self._notices.append(f"{device} is not used in {precision}: {problem}")
            else:
                return self._faster_device(there) if is_auto and self._train.verify else there
        if not is_auto:
            raise DeviceError(
                f"device={device}: its results are wrong: {problem}; use device=cpu, or "
                "set train.verify=false to train all the same"
            )
        return self._on_cpu()

    def _gpu_precisions(self, device: torch.device) -> list[Precision]:
        """The precisions to try on a GPU, the best first.

        A recurrent net on CUDA is in fp16, with the loss scaled as that needs: PyTorch's autocast
        runs cuDNN's layers in nothing else, even where bfloat16 is asked for.
        """
        asked = self._train.precision
        if asked != "auto":
            if asked == "bf16" and device.type == "cuda" and not _cuda_has_bf16():
                raise DeviceError("train.precision bf16: this GPU has none; use fp16, fp32 or auto")
            return [asked]
        if recorded := self._recorded_on(device):
            return [recorded]
        if device.type != "cuda":
            return ["fp32"]
        recurrent = isinstance(self._model, Recurrent)
        return ["fp16" if recurrent or not _cuda_has_bf16() else "bf16", "fp32"]

    def _faster_device(self, there: Compute) -> Compute:
        """The GPU or the CPU, whichever takes less time for a few steps."""
        here = self._on_cpu()

        def way(compute: Compute) -> Callable[[float], float]:
            model = _on(self._plain, compute.device)
            return lambda _: step_seconds(model, self._train, compute, self._x, self._y)

        ways = {"there": way(there), "here": way(here)}
        winner, seconds = fastest(ways, "there", 1.0, shares=(1,))
        times = (
            f"{1e3 * seconds['there']:.3g} ms a step, and on the CPU {1e3 * seconds['here']:.3g} ms"
        )
        if winner == "there":
            return replace(there, checks=(*there.checks, f"{there.device}: {times}"))
        self._notices.append(f"{there.device} is slower than the CPU ({times}), so not used")
        return here

    # --- what both share ---------------------------------------------------------------------

    @property
    def _kind(self) -> str:
        return self._model.config.kind

    def _verified(self, compute: Compute) -> Compute:
        """`compute`, if one batch gives by it what it gives in float32 on the CPU.

        Raises:
            _WrongError: it does not.
        """
        if not self._train.verify:
            return compute
        got = look(_on(self._plain, compute.device), compute, self._x, self._y)
        agrees, text = compare(got, self._exact, compute.precision)
        if not agrees:
            raise _WrongError(text)
        name = "charlm's kernel" if compute.device == CPU else str(compute.device)
        return replace(compute, checks=(*compute.checks, f"{name}, {compute.precision}: {text}"))

    @functools.cached_property
    def _exact(self) -> Look:
        return look(self._plain, Compute(CPU, "fp32", self._threads), self._x, self._y)

    def _with_muon(self, compute: Compute) -> Compute:
        """With the precision in which Muon's products are faster on this device."""
        is_muon = isinstance(self._train.optimizer, MuonConfig)
        if not is_muon or compute.newton_schulz is not None:
            return compute
        recorded, shape = self._recorded, self._largest_matrix()
        preferred: Precision = "fp32" if recorded is None else recorded.muon
        if math.prod(shape) < SMALL:
            return replace(compute, muon=preferred)

        def way(precision: Precision) -> Callable[[float], float]:
            return functools.partial(muon_seconds, shape, str(compute.device), precision)

        margin = MARGIN if recorded is None else HOPELESS
        return replace(compute, muon=_faster(way, preferred, margin, (1 / 8, 1 / 2, 1)))

    def _largest_matrix(self) -> tuple[int, int]:
        rows, columns = max(self._model.hidden_matrices(), key=lambda it: it.numel()).shape
        return rows, columns


@functools.cache
def muon_seconds(shape: tuple[int, int], device: str, precision: Precision, share: float) -> float:
    """Seconds for the orthogonal factor of a matrix, each side a share of `shape`'s; infinite where
    the device cannot compute it. Measured once a process.
    """
    rows, columns = (max(1, int(side * share)) for side in shape)
    matrix = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(0)).to(device)
    seconds: list[float] = []
    try:
        while len(seconds) < 2 or (sum(seconds) < ENOUGH_S and len(seconds) < 20):
            started = time.perf_counter()
            float(orthogonal(matrix, DTYPES[precision])[0, 0, 0])  # waits for a GPU
            seconds.append(time.perf_counter() - started)
    except RuntimeError:
        return float("inf")
    return min(seconds)


def kernel_error(kernel: NewtonSchulz, shape: tuple[int, int]) -> float:
    """How far a kernel's factor of a random matrix is from float32's, relative."""
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(shape)
    kernel.steps([Moved(weights, gradient, torch.zeros(shape), 1.0)], 0.0, 1.0)
    exact = orthogonal(gradient[None], torch.float32)[0]
    return float((-weights - exact).norm() / exact.norm())


def _on(model: CharModel, device: torch.device) -> CharModel:
    """A model on a device; the one on the CPU stays where it is."""
    if device == CPU:
        return model
    return without_dropout(model).to(device)


def _faster(
    way: Callable[[Precision], Callable[[float], float]],
    preferred: Precision,
    margin: float,
    shares: Sequence[float] = SHARES,
) -> Precision:
    """float32 or bfloat16, whichever takes less time by `way`; see `fastest`."""
    ways = {"fp32": way("fp32"), "bf16": way("bf16")}
    return "bf16" if fastest(ways, preferred, margin, shares)[0] == "bf16" else "fp32"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:150]


def _cuda_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
