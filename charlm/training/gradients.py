"""The gradients of a batch that several processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from charlm.models import CharModel, State
from charlm.models.base import Forward
from charlm.processes import Processes, readable_errors


class Gradients:
    """Adds up the gradients and the losses of all processes.

    On a CPU this is one message after the backward pass, so that the sums have one order. On a GPU,
    DistributedDataParallel sends the gradients in parts, while the backward pass computes others.

    Args:
        overlap: use DistributedDataParallel.
    """

    def __init__(self, model: CharModel, processes: Processes, overlap: bool) -> None:
        self._parameters, self._processes = list(model.parameters()), processes
        self._model, self._overlap = model, overlap and not processes.is_alone
        self._parallel: DistributedDataParallel | None = None

    def forward(self, forward: Forward) -> Forward:
        """Return the forward pass to use for training."""
        if not self._overlap:
            return forward
        self._parallel = DistributedDataParallel(
            _Wrapped(self._model, forward), gradient_as_bucket_view=True
        )
        # a function with string annotations is refused
        self._parallel.register_comm_hook(
            self._processes, lambda processes, bucket: _add_bucket(processes, bucket)
        )
        return self._parallel

    @contextmanager
    def piece(self, is_last: bool) -> Iterator[None]:
        """The context for the forward and backward pass of a piece of the batch.

        Raises:
            ProcessError: another process has ended, or does not answer.
        """
        if self._parallel is None:
            yield
            return
        with readable_errors(), nullcontext() if is_last else self._parallel.no_sync():
            yield

    @torch.no_grad()
    def add(self, loss: Tensor) -> Tensor:
        """Add up the gradients, in place, and the loss, a scalar. Returns the sum of the losses."""
        gradients = [it.grad for it in self._parameters if it.grad is not None]
        self._processes.add([loss] if self._overlap else [*gradients, loss])
        return loss


class _Wrapped(nn.Module):
    """A module with the parameters of a model and another forward pass."""

    def __init__(self, model: CharModel, forward: Forward) -> None:
        super().__init__()
        self.model, self._forward = model, forward

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the logits (B, T, V) of x (B, T), and the state after it."""
        return self._forward(x, state)


def _add_bucket(processes: Processes, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Add up a part of the gradients. DistributedDataParallel would return their mean."""
    buffer = bucket.buffer()
    processes.count(buffer)
    work = torch.distributed.all_reduce(buffer, async_op=True)
    return work.get_future().then(lambda future: future.value()[0])  # type: ignore[no-any-return]
