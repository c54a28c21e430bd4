"""Chooses among charlm's own kernels and PyTorch on the CPU: what is correct, then what is fastest.

A resumed run repeats the choices of the run before, if this machine can.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from charlm.config import SGDConfig, TrainConfig
from charlm.errors import DeviceError
from charlm.kernels.build import NoKernelError
from charlm.kernels.fused import Kernels
from charlm.kernels.muon import MuonKernel
from charlm.kernels.variants import Variant
from charlm.models import CharModel
from charlm.training import trial
from charlm.training.compute import TORCH, Choices, Compute
from charlm.training.measured import measured

MARGIN = 1.1  # PyTorch must be this many times as fast, so that noise does not decide
MUON_TOLERANCES = {"bf16": 0.05, "fp32": 1e-3}  # largest relative errors of Muon's factor


class MismatchError(RuntimeError):
    """The results differ from those in float32 on the CPU."""


@dataclass(frozen=True)
class KernelChooser:
    """Chooses what computes the layers and Muon on the CPU.

    Attributes:
        model: on the CPU.
        recorded: the choices of the run to resume, or of the first process.
        float32: PyTorch on this CPU.
        verified: returns a Compute with a line in `checks`, or raises MismatchError.
        notices: gets a line for each thing that a user should know.
    """

    train: TrainConfig
    model: CharModel
    recorded: Choices | None
    kernels: type[Kernels]
    float32: Compute
    verified: Callable[[Compute], Compute]
    notices: list[str]

    def _was(self, recorded: str | None) -> str | None:
        """A choice of the run before, if it is to be repeated."""
        if self.train.kernels == "off":
            return TORCH
        return None if self.train.kernels == "on" else recorded

    def _variants(self, was: str | None) -> list[Variant]:
        """The variants to try: the one of the run before; all, if there was no run before or this
        CPU does not have its variant."""
        usable = self.kernels.variants(self.train.precision) if was != TORCH else []
        return [variant for variant in usable if variant.name == was] or usable

    # --- layers ------------------------------------------------------------------------------

    def layers(self, pytorch: Callable[[], Compute]) -> Compute:
        """Return how to compute the layers.

        Args:
            pytorch: returns PyTorch on this CPU in the best precision; called only if PyTorch is
                timed or used.

        Raises:
            DeviceError: train.kernels is `on`, and there is none for this CPU.
        """
        if not self.kernels.support(self.model):
            return pytorch()
        was = self._was(_layers_of(self.recorded) if self.recorded else None)
        found = {it.kernel: it for it in self._correct(self._variants(was))}
        slow = functools.cache(pytorch)
        names = [*found, *[TORCH] * (self.train.kernels != "on" and was not in found)]

        def compute_of(name: str) -> Compute:
            return found[name] if name in found else slow()

        return compute_of(names[0]) if len(names) == 1 else self._fastest(names, compute_of)

    def _correct(self, variants: list[Variant]) -> Iterator[Compute]:
        """Yield a Compute for each variant whose layers are correct."""
        problem = f"no kernel supports train.precision {self.train.precision} on this CPU"
        n_found = 0
        for variant in variants:
            try:
                compute = replace(
                    self.float32,
                    precision="bf16" if variant.half else "fp32",
                    kernel=variant.name,
                    fused=self.kernels.layers(self.model, variant),
                )
                yield self.verified(compute)
                n_found += 1
            except NoKernelError as error:
                problem = f"charlm's own kernels are not available: {error}"
                self.notices.append(
                    f"{problem}; training is slower than this CPU allows, but the results are as "
                    "good"
                )
                break  # what one variant lacks, the others lack, too
            except MismatchError as error:
                problem = f"charlm's kernel is wrong on this CPU and not used: {error}"
                self.notices.append(problem)
        if not n_found and self.train.kernels == "on":
            raise DeviceError(f"train.kernels on: {problem}; use train.kernels=auto or off")

    def _fastest(self, names: list[str], compute_of: Callable[[str], Compute]) -> Compute:
        """Return the one with the shortest step. Each is timed once on this machine."""
        # with SGD the layers take most of the time; Muon's kernel is chosen separately
        train = self.train.model_copy(update={"optimizer": SGDConfig()})
        x, y = trial.random_batch(train, self.model)
        seconds = measured(
            f"layers {self.model.config!r} {self.model.vocab_size} {tuple(x.shape)} "
            f"{self.train.precision} {self.float32.threads}",
            names,
            lambda name: trial.step_seconds(self.model, train, compute_of(name), x, y, repeats=1),
        )
        best = compute_of(_best(seconds))
        return replace(best, checks=(*best.checks, _times(seconds, best.kernel)))

    # --- Muon --------------------------------------------------------------------------------

    def muon(self, compute: Compute, pytorch: Callable[[Compute], Compute]) -> Compute:
        """Return `compute` with what computes Muon.

        Args:
            pytorch: sets the best precision of PyTorch's products; called only if PyTorch is
                timed or used.
        """
        was = self._was(_muon_of(self.recorded) if self.recorded else None)
        found = dict(self._correct_muon(self._variants(was)))
        if was in found:
            return _with_muon_kernel(compute, found[was], was)
        slow = functools.cache(lambda: pytorch(compute))
        names = [*found, *[TORCH] * (self.train.kernels != "on" or not found)]
        best = names[0]
        if len(names) > 1:
            shapes = [tuple(it.shape) for it in self.model.hidden_matrices()]
            seconds = measured(
                f"muon {shapes} {self.float32.threads}",
                names,
                lambda name: trial.muon_step_seconds(self.model, found.get(name), slow().muon),
            )
            best = _best(seconds)
        return slow() if best == TORCH else _with_muon_kernel(compute, found[best], best)

    def _correct_muon(self, variants: list[Variant]) -> Iterator[tuple[str, MuonKernel]]:
        """Yield each kernel for Muon that is correct, with the name of its variant."""
        for variant in variants:
            try:
                kernel = self.kernels.muon(variant)
            except NoKernelError:
                return  # `_correct` has said so
            error = 0.0
            if self.train.verify:
                error = trial.muon_kernel_error(kernel, trial.largest_matrix(self.model))
            if error <= MUON_TOLERANCES[kernel.precision]:
                yield variant.name, kernel
            else:
                self.notices.append(
                    "charlm's kernel is wrong on this CPU and not used: Muon's orthogonal factor "
                    f"is {error:.1%} off"
                )


def _layers_of(recorded: Choices) -> str:
    """What computed the layers of the run before."""
    # a file without muon_kernel is from when `kernel` could be that of Muon alone, and layers in
    # float32 were always PyTorch's
    is_old = recorded.muon_kernel is None and recorded.precision == "fp32"
    return TORCH if is_old else recorded.kernel


def _muon_of(recorded: Choices) -> str:
    """What computed Muon in the run before."""
    return recorded.kernel if recorded.muon_kernel is None else recorded.muon_kernel


def _with_muon_kernel(compute: Compute, kernel: MuonKernel, name: str) -> Compute:
    return replace(compute, muon=kernel.precision, muon_kernel=name, fused_muon=kernel)


def _best(seconds: dict[str, float]) -> str:
    """The name with the shortest time; PyTorch only if it is clearly the fastest."""
    return min(seconds, key=lambda name: seconds[name] * (MARGIN if name == TORCH else 1))


def _times(seconds: dict[str, float], best: str) -> str:
    times = ", ".join(f"{name} {1e3 * it:.3g} ms" for name, it in seconds.items())
    return f"a trial step: {times}; {best} is used"
