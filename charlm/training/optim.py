"""Builds the optimizers of a model, and decides which one updates which parameter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from charlm.config import AdamConfig, MuonConfig, OptimizerConfig, RMSPropConfig, SGDConfig
from charlm.config.shapes import Named
from charlm.kernels.muon import MuonKernel
from charlm.models import CharModel
from charlm.processes import Processes
from charlm.training.muon import BatchedMuon, FastMuon


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

    def _groups(self) -> list[dict[str, Any]]:
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
        for optimizer in self.each:
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of all optimizers, by `parameter:key`: in the first process, all."""
        return self._all_averages() | {
            f"{self._names[parameter]}:{key}": value
            for optimizer in self.each
            for parameter, state in optimizer.state.items()
            for key, value in state.items()
            if isinstance(value, Tensor)
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
            for key in _state_of(optimizer):
                shape = () if key == "step" else tuple(parameter.shape)
                yield f"{self._names[parameter]}:{key}", shape

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Load the state that `tensors()` returned.

        Args:
            tensors: those of `shapes`, on the model's device; or none, before the first step.
        """
        for optimizer, parameter in self._owned() if tensors else ():
            if parameter in self._others:
                continue
            for key in _state_of(optimizer):
                optimizer.state[parameter][key] = tensors[f"{self._names[parameter]}:{key}"]

    def _owned(self) -> Iterator[tuple[torch.optim.Optimizer, Tensor]]:
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


def _state_of(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """The names of the tensors that an optimizer keeps for a parameter."""
    match optimizer:
        case torch.optim.SGD():
            return ("momentum_buffer",) if optimizer.defaults["momentum"] else ()
        case torch.optim.RMSprop():
            return "step", "square_avg"
        case torch.optim.Muon():
            return ("momentum_buffer",)
        case torch.optim.Adam():  # also AdamW
            return "step", "exp_avg", "exp_avg_sq"
    raise AssertionError(optimizer)


def _build(
    model: CharModel, config: OptimizerConfig, muon: torch.dtype, kernel: MuonKernel | None
) -> list[torch.optim.Optimizer]:
    groups = _decay_groups(list(model.parameters()), getattr(config, "weight_decay", 0.0))
    match config:
        case SGDConfig():
            return [torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)]
        case RMSPropConfig():
            return [torch.optim.RMSprop(groups, lr=config.lr, alpha=config.alpha, eps=config.eps)]
        case AdamConfig(kind=kind):
            adam = torch.optim.Adam if kind == "adam" else torch.optim.AdamW
            return [adam(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)]
        case MuonConfig():
            return _build_muon(model, config, muon, kernel)
    raise AssertionError(config)


def _build_muon(
    model: CharModel, config: MuonConfig, dtype: torch.dtype, kernel: MuonKernel | None
) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for all other parameters."""
    hidden = model.hidden_matrices()
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in hidden)]
    build: Callable[..., torch.optim.Optimizer]
    if kernel is not None:
        build = functools.partial(FastMuon, kernel=kernel)
    elif dtype == torch.bfloat16 and not hidden[0].is_cuda:
        build = torch.optim.Muon  # computes in bfloat16; on CUDA, batches of one shape are faster
    else:
        build = functools.partial(BatchedMuon, dtype=dtype)
    return [
        build(hidden, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay),
        torch.optim.AdamW(
            _decay_groups(rest, config.weight_decay),
            lr=config.adamw_lr,
            betas=config.betas,
            eps=config.eps,
            fused=True,
        ),
    ]


def _decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: matrices, which decay, and biases and norm gains, which do not."""
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    decays = ((matrices, weight_decay), (vectors, 0.0))
    return [{"params": group, "weight_decay": decay} for group, decay in decays if group]
