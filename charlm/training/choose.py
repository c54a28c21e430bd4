"""Chooses the device, the precision and the kernels of a run by short trials.

On a CPU, `auto` uses the faster of PyTorch and charlm's own kernels. PyTorch computes in float32,
or in bfloat16 if that is clearly faster. A GPU or a kernel is used only if its loss and gradient
for one batch agree with float32 on the CPU. `auto` also requires that a GPU's steps are faster.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace

import torch

from charlm.config import MuonConfig, SGDConfig, TrainConfig
from charlm.devices import CPU, choose_device, set_threads
from charlm.errors import DeviceError
from charlm.kernels.fused import Kernels
from charlm.models import CharModel
from charlm.models.recurrent import Recurrent
from charlm.training import trial
from charlm.training.choose_kernels import KernelChooser, MismatchError
from charlm.training.compute import Choices, Compute, Precision
from charlm.training.memory import refuse_too_large

SMALL_MATRIX = 128 * 128  # elements; for a smaller matrix, Muon's precision is not timed
MUON_SHARES = (1 / 8, 1 / 2, 1)  # shares of each side of the largest matrix, in growing trials


def choose_compute(
    train: TrainConfig,
    model: CharModel,
    device_name: str,
    recorded: Choices | None = None,
    kernels: type[Kernels] = Kernels,
) -> Compute:
    """Choose the device, precision, threads and kernels of a run.

    Sets the number of threads of the process and, on CUDA, TF32.

    Args:
        model: on the CPU.
        device_name: `auto` or the name of a device.
        recorded: the choices of the run to resume, or of the first process. They are repeated if
            possible.
        kernels: charlm's own kernels.

    Raises:
        ConfigError: the run needs more memory than there is.
        DeviceError: the device is missing, gives wrong numbers, or does not support the precision
            that was asked for.
    """
    return _Chooser(train, model, recorded, kernels).choose(device_name)


class _Chooser:
    def __init__(
        self, train: TrainConfig, model: CharModel, recorded: Choices | None, kernels: type[Kernels]
    ) -> None:
        self._train, self._model, self._recorded = train, model, recorded
        self._kernels = kernels
        self._plain = trial.without_dropout(model)
        self._float32 = Compute(CPU, "fp32", set_threads(train.threads))
        self._x, self._y = trial.random_batch(train, model)
        self._notices: list[str] = []

    def choose(self, device_name: str) -> Compute:
        device = choose_device(device_name)
        is_auto = device_name == "auto"
        compute = self._on_cpu() if device == CPU else self._on_gpu(device, is_auto)
        return replace(compute, notices=tuple(self._notices))

    # --- a CPU -------------------------------------------------------------------------------

    def _on_cpu(self) -> Compute:
        refuse_too_large(self._train, self._model.config, self._model.vocab_size)
        chooser = KernelChooser(
            self._train,
            self._model,
            self._recorded,
            self._kernels,
            self._float32,
            self._verified,
            self._notices,
        )
        compute = chooser.layers(lambda: replace(self._float32, precision=self._cpu_precision()))
        return chooser.muon(compute, self._with_muon_precision) if self._is_muon else compute

    def _cpu_precision(self) -> Precision:
        """Return the precision in the config; for auto, the faster of float32 and bfloat16."""
        asked, recorded = self._train.precision, self._recorded_on(CPU)
        if asked == "fp32" or (asked == "auto" and recorded == "fp32"):
            return "fp32"
        half = replace(self._float32, precision="bf16" if asked == "auto" else asked)
        reason = trial.unsupported_reason(self._plain, self._train, half)
        if asked != "auto":
            if reason:
                raise DeviceError(
                    f"train.precision {asked}: PyTorch cannot train this {self._model.config.kind} "
                    f"in {asked} on this CPU ({reason}); use fp32 or auto"
                )
            return asked
        if reason:
            return "fp32"
        # with SGD the layers take most of the time; Muon's precision is chosen separately
        train = self._train.model_copy(update={"optimizer": SGDConfig()})

        def seconds(precision: Precision, share: float) -> float:
            compute = replace(self._float32, precision=precision)
            batch = trial.random_batch(train, self._model, share)
            return trial.step_seconds(self._model, train, compute, *batch)

        return trial.faster(seconds, recorded)

    def _recorded_on(self, device: torch.device) -> Precision | None:
        """Return the recorded precision, or None if it is from another type of device."""
        recorded = self._recorded
        if recorded is None or torch.device(recorded.device).type != device.type:
            return None
        return recorded.precision

    # --- a GPU -------------------------------------------------------------------------------

    def _on_gpu(self, device: torch.device, is_auto: bool) -> Compute:
        """Return how to compute on the GPU, if its results are correct.

        If half precision gives wrong results, train.precision auto tries float32 next. With
        `is_auto` (--device auto), the CPU is the choice if the GPU is wrong or slower.

        Raises:
            DeviceError: the results are wrong, or the GPU does not support the precision.
        """
        problem = ""
        for precision in self._gpu_precisions(device):
            compute = Compute(device, precision, self._float32.threads)
            try:
                compute = self._verified(self._with_muon_precision(compute))
            except torch.OutOfMemoryError:  # a RuntimeError, but not a wrong result
                raise
            except RuntimeError as error:
                problem = trial.first_line(error)
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
        """Return the precisions to try on a GPU, in order of preference.

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
        """Return `gpu`, or the choice for the CPU if a step takes less time there."""
        cpu = self._on_cpu()
        gpu_s, cpu_s = (
            trial.step_seconds(self._model, self._train, it, self._x, self._y) for it in (gpu, cpu)
        )
        times = f"{1e3 * gpu_s:.3g} ms a step, and on the CPU {1e3 * cpu_s:.3g} ms"
        if gpu_s <= cpu_s:
            return replace(gpu, checks=(*gpu.checks, f"{gpu.device}: {times}"))
        self._notices.append(f"{gpu.device} is slower than the CPU ({times}), so it is not used")
        return cpu

    # --- both --------------------------------------------------------------------------------

    def _verified(self, compute: Compute) -> Compute:
        """Compare one batch with float32 on the CPU; return `compute` with a line in `checks`.

        Raises:
            MismatchError: the loss or the gradient differs.
        """
        if not self._train.verify:
            return compute
        plain = self._plain
        # a copy for a GPU, because `to` would move the model
        model = plain if compute.device == CPU else copy.deepcopy(plain).to(compute.device)
        result = trial.loss_and_gradient(model, compute, self._x, self._y)
        agrees, text = trial.compare(result, self._reference, compute.precision)
        if not agrees:
            raise MismatchError(text)
        name = f"{compute.kernel} kernel" if compute.device == CPU else str(compute.device)
        return replace(compute, checks=(*compute.checks, f"{name}, {compute.precision}: {text}"))

    @functools.cached_property
    def _reference(self) -> trial.LossAndGradient:
        return trial.loss_and_gradient(self._plain, self._float32, self._x, self._y)

    @property
    def _is_muon(self) -> bool:
        return isinstance(self._train.optimizer, MuonConfig)

    def _with_muon_precision(self, compute: Compute) -> Compute:
        """Set the precision in which Muon's products by PyTorch are faster on this device."""
        if not self._is_muon:
            return compute
        recorded: Precision | None = self._recorded.muon if self._recorded else None
        shape = trial.largest_matrix(self._model)
        if math.prod(shape) < SMALL_MATRIX:
            return replace(compute, muon=recorded or "fp32")
        seconds = functools.partial(trial.muon_seconds, shape, str(compute.device))
        return replace(compute, muon=trial.faster(seconds, recorded, MUON_SHARES))


def _cuda_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
