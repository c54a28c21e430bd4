"""Builds the optimizers of a model, and decides which one updates which parameter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from charlm.config import AdamConfig, MuonConfig, OptimizerConfig, RMSPropConfig, SGDConfig
from charlm.config.shapes import Named
from charlm.kernels.muon import MuonKernel
from charlm.models import CharModel
from charlm.processes import Processes
from charlm.training.muon import make_muon
from charlm.training.rules import (
    Group,
    Optimizer,
    make_adam,
    make_rmsprop,
    make_sgd,
    shape_of_state,
)


class Optimizers:
    """The optimizers of a model. Every parameter is in exactly one of their groups.

    Args:
        muon: the dtype in which PyTorch computes Muon's products.
        fused_muon: charlm's own kernel that computes them instead; None for PyTorch.
        processes: those that update the same weights. Each matrix of Muon is updated by one of
            them, which keeps its average and sends it to the others.

    Attributes:
        each: the optimizers, one or two.
    """

    def __init__(
        self,
        model: CharModel,
        config: OptimizerConfig,
        muon: torch.dtype = torch.bfloat16,
        fused_muon: MuonKernel | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
        self.each = _build(model, config, muon, fused_muon)
        self._processes = processes or Processes()
        matrices = model.hidden_matrices() if isinstance(config, MuonConfig) else []
        self._shares = _shares(matrices, self._processes.size)
        others = [it for rank, it in enumerate(self._shares) if rank != self._processes.rank]
        self._others = {matrix for matrices in others for matrix in matrices}
        self._base_lr: list[float] = [group["lr"] for group in self._groups()]

    def _groups(self) -> list[Group]:
        return [group for optimizer in self.each for group in optimizer.param_groups]

    def set_lr(self, scale: float) -> float:
        """Set every learning rate to `scale` times its configured value; return the first."""
        for group, base in zip(self._groups(), self._base_lr, strict=True):
            group["lr"] = base * scale
        return self._base_lr[0] * scale

    def step(self) -> None:
        """Update all parameters."""
        for matrix in self._others:
            matrix.grad = None  # so that Muon leaves it out
        for optimizer in self.each:
            optimizer.step()
        self._processes.exchange(self._shares)

    def zero_grad(self) -> None:
        """Release all gradients."""
        for _, parameter in self._owned():
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of all optimizers, by `parameter:key`: in the first process, all."""
        return self._all_averages() | {
            f"{self._names[parameter]}:{key}": value
            for optimizer in self.each
            for parameter, state in optimizer.state.items()
            for key, value in state.items()
        }

    def _all_averages(self) -> dict[str, Tensor]:
        """Return the averages of all of Muon's matrices, from the processes that update them; none
        if there is one process."""
        if self._processes.is_alone or not self.each[-1].state:  # before the first step
            return {}
        own = self.each[0].state
        shares = [
            [own[it]["momentum_buffer"] if it in own else torch.empty_like(it) for it in matrices]
            for matrices in self._shares
        ]
        self._processes.exchange(shares)
        return {
            f"{self._names[matrix]}:momentum_buffer": average
            for matrices, averages in zip(self._shares, shares, strict=True)
            for matrix, average in zip(matrices, averages, strict=True)
        }

    def shapes(self) -> Named:
        """Yield the names and shapes that `tensors()` has after a step; all are float32."""
        for optimizer, parameter in self._owned():
            for key in optimizer.keys:
                yield f"{self._names[parameter]}:{key}", shape_of_state(key, parameter)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Load the state that `tensors()` returned.

        Args:
            tensors: those of `shapes`, on the model's device; or none, before the first step.
        """
        for optimizer, parameter in self._owned() if tensors else ():
            if parameter in self._others:
                continue
            name = self._names[parameter]
            optimizer.state[parameter] = {key: tensors[f"{name}:{key}"] for key in optimizer.keys}

    def _owned(self) -> Iterator[tuple[Optimizer, Tensor]]:
        for optimizer in self.each:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield optimizer, parameter


def _shares(matrices: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    """Share out the matrices among processes, so that Muon takes each about the same time."""
    shares: list[list[Tensor]] = [[] for _ in range(size)]
    work = [0] * size
    for matrix in sorted(matrices, key=_work, reverse=True):
        least = work.index(min(work))
        shares[least].append(matrix)
        work[least] += _work(matrix)
    return shares


def _work(matrix: Tensor) -> int:
    """The multiplications in one of Muon's products."""
    return matrix.numel() * min(matrix.shape)


def _build(
    model: CharModel, config: OptimizerConfig, muon: torch.dtype, kernel: MuonKernel | None
) -> list[Optimizer]:
    groups = _decay_groups(list(model.parameters()), config.weight_decay)
    match config:
        case SGDConfig():
            return [make_sgd(groups, config.lr, config.momentum)]
        case RMSPropConfig():
            return [make_rmsprop(groups, config.lr, config.alpha, config.eps)]
        case AdamConfig(kind=kind):
            return [make_adam(groups, config.lr, config.betas, config.eps, kind == "adamw")]
        case MuonConfig():
            return _build_muon(model, config, muon, kernel)
    raise AssertionError(config)


def _build_muon(
    model: CharModel, config: MuonConfig, dtype: torch.dtype, kernel: MuonKernel | None
) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for all other parameters."""
    hidden = model.hidden_matrices()
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in hidden)]
    groups, others = (_decay_groups(it, config.weight_decay) for it in (hidden, rest))
    return [
        make_muon(groups, config.lr, config.momentum, kernel, dtype),
        make_adam(others, config.adamw_lr, config.betas, config.eps, decoupled=True),
    ]


def _decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[Group]:
    """Return two groups: matrices, which decay, and biases and norm gains, which do not."""
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    decays = ((matrices, weight_decay), (vectors, 0.0))
    return [{"params": group, "weight_decay": decay} for group, decay in decays if group]
