"""The processes that train a run together. Usually there is one; torchrun starts more.

PyTorch's torch.distributed carries the messages: gloo for tensors on the CPU, NCCL for those on
GPUs. Tensors of processes on one machine go through memory that they share (shared.py). A method
that sends messages must be called by all processes, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from charlm.errors import CharlmError, PeerEndedError, ProcessError
from charlm.shared import SharedMemory, copy_flat, share_memory

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# how gloo says that another process has ended
_ENDED = (
    "closed by peer",
    "reset by peer",
    "Broken pipe",
    "Read error",
    "Socket closed",
    "likely closed",
)


class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: the number of this process, from 0. The process 0 is the one that prints, logs,
            samples and saves.
        size: the number of processes.
        local_rank, local_size: the same for the processes of its machine.
        launched_by: the commands torchrun that started the processes, one for each machine; empty
            without torchrun.
        messages, bytes: how many collective operations this process took part in, and the size of
            their tensors.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        local_size: int = 1,
        launched_by: tuple[str, ...] = (),
        parent: int | None = None,
    ) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self.launched_by, self._parent = launched_by, parent
        self.messages = self.bytes = 0
        self._memory: SharedMemory | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def has_lost_launcher(self) -> bool:
        """Whether the torchrun that started this process has ended, and left it without control."""
        return bool(self.launched_by) and self._parent not in (None, os.getppid())

    def rows(self, batch_size: int) -> slice:
        """The rows of a batch that this process trains on."""
        B = batch_size // self.size
        return slice(B * self.rank, B * (self.rank + 1))

    def share_memory(self, timeout_s: float) -> None:
        """Use memory that all share for tensors on the CPU, if all are on one machine and can.

        Args:
            timeout_s: how long to wait for another process, s.
        """
        if not self.is_alone and self.local_size == self.size:
            self._memory = share_memory(
                self.rank, self.size, timeout_s, self.first, lambda can: all(self.all(can))
            )

    def _memory_for(self, tensors: Iterable[Tensor]) -> SharedMemory | None:
        """The memory to use for tensors; None if torch.distributed has to send them."""
        on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
        return self._memory if on_cpu else None

    # --- numbers and tensors -----------------------------------------------------------------

    def sum(self, *numbers: float) -> list[float]:
        """Return the sums of each number over all processes, in float64."""
        if self.is_alone:
            return list(numbers)
        import torch

        total = torch.tensor(numbers, dtype=torch.float64)
        self.add([total])
        return total.tolist()

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace contiguous tensors of one type by their sums over all processes: one message."""
        if self.is_alone:
            return
        import torch
        import torch.distributed as dist

        self.count(*tensors)
        with torch.no_grad(), readable_errors():
            if memory := self._memory_for(tensors):
                memory.add(tensors)
                return
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            copy_flat(flat, tensors)

    def exchange(self, shares: Sequence[Sequence[Tensor]]) -> None:
        """Replace the tensors of each share by those of the process with its number.

        The tensors of a share have one type, and are one message. All messages are sent at once.
        """
        if self.is_alone:
            return
        import torch
        import torch.distributed as dist

        for share in filter(None, shares):
            self.count(*share)
        with torch.no_grad(), readable_errors():
            if memory := self._memory_for(chain.from_iterable(shares)):
                memory.exchange(shares)
                return
            sent = []
            for rank, share in enumerate(shares):
                if share:
                    flat = torch.cat([tensor.flatten() for tensor in share])
                    sent.append((rank, share, flat, dist.broadcast(flat, rank, async_op=True)))
            for rank, share, flat, work in sent:
                work.wait()
                if rank != self.rank:
                    copy_flat(flat, share)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, on the CPU. All have the same shape and type."""
        if self.is_alone:
            return [tensor]
        import torch
        import torch.distributed as dist

        mine = tensor.detach().cpu().contiguous()
        found = [torch.empty_like(mine) for _ in range(self.size)]
        self.count(mine)
        with readable_errors():
            dist.all_gather(found, mine)
        return found

    def first_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the first process, on the CPU."""
        if self.is_alone:
            return tensors
        import torch

        facts = self.first([(name, it.shape, it.dtype) for name, it in tensors.items()])
        found = {}
        for name, shape, dtype in facts:
            mine = tensors.get(name)
            found[name] = torch.empty(shape, dtype=dtype) if mine is None else mine.cpu()
            self.exchange([[found[name]]])
        return found

    # --- anything ----------------------------------------------------------------------------

    def first(self, value: T) -> T:
        """Return the value of the first process."""
        if self.is_alone:
            return value
        import torch.distributed as dist

        values: list[Any] = [value]
        with readable_errors():
            dist.broadcast_object_list(values, 0)
        return values[0]  # type: ignore[no-any-return]

    def all(self, value: T) -> list[T]:
        """Return the values of all processes."""
        if self.is_alone:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with readable_errors():
            dist.all_gather_object(values, value)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do something that may fail in each process: if it fails in one, it fails in all.

        Raises:
            PeerEndedError: it failed in another process, which raises the error.
        """
        error: CharlmError | None = None
        try:
            yield
        except CharlmError as caught:
            if self.is_alone:
                raise
            error = caught
        failed = [rank for rank, it in enumerate(self.all(error is not None)) if it]
        if failed and failed[0] != self.rank:
            raise self._end_of(failed[0]) from error
        if error is not None:
            raise error

    def common(self, error: CharlmError) -> CharlmError:
        """Return what to raise for an error that all processes have: the first one reports it."""
        return error if self.is_first else self._end_of(0)

    def _end_of(self, rank: int) -> PeerEndedError:
        """Wait until a process that failed has printed its error and ended.

        torchrun stops the others as soon as one has ended, also before they print.
        """
        with suppress(RuntimeError, ProcessError):
            self.wait()
        return PeerEndedError(rank)

    def wait(self) -> None:
        """Wait until all processes call this."""
        if not self.is_alone:
            import torch.distributed as dist

            with readable_errors():
                dist.barrier()

    def count(self, *tensors: Tensor) -> None:
        """Count a message with these tensors."""
        self.messages += 1
        self.bytes += sum(tensor.nbytes for tensor in tensors)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn the errors of a message into those that a user can read.

    Raises:
        PeerEndedError: another process has ended.
        ProcessError: another process did not answer in time.
    """
    import torch.distributed as dist

    try:
        yield
    except (RuntimeError, OSError) as error:
        text = str(error)
        if "imed out" in text or "imeout" in text:
            raise ProcessError(
                "another process did not answer in time; if it was only slow, give torchrun's "
                "command a longer --timeout"
            ) from error
        if isinstance(error, dist.DistNetworkError) or says_ended(text):
            raise PeerEndedError from error
        raise


def says_ended(text: str) -> bool:
    """Whether an error of PyTorch says that another process has ended."""
    return any(it in text for it in _ENDED)
