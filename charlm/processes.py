"""The processes that train a run together. Usually there is one; torchrun starts more.

PyTorch's torch.distributed carries the messages: gloo for tensors on the CPU, NCCL for those on
GPUs. A method that sends messages must be called by all processes, in the same order.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from charlm.errors import CharlmError, PeerEndedError, ProcessError
from charlm.machine import usable_cpus

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
TIMEOUT_S = 1800  # that a process waits for the others
# how gloo says that another process has ended
_ENDED = ("closed by peer", "reset by peer", "Broken pipe", "Read error", "Socket closed")


class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: the number of this process, from 0. The process 0 is the one that prints, logs,
            samples and saves.
        size: the number of processes.
        local_rank: the number of this process among those of its machine.
        messages, bytes: how many collective operations this process took part in, and the size of
            their tensors.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self.messages = self.bytes = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def rows(self, batch_size: int) -> slice:
        """The rows of a batch that this process trains on."""
        B = batch_size // self.size
        return slice(B * self.rank, B * (self.rank + 1))

    # --- numbers and tensors -----------------------------------------------------------------

    def sum(self, *numbers: float) -> list[float]:
        """Return the sums of each number over all processes, in float64."""
        if self.is_alone:
            return list(numbers)
        import torch

        total = torch.tensor(numbers, dtype=torch.float64)
        self.add(total)
        return total.tolist()

    def add(self, tensor: Tensor) -> None:
        """Replace a contiguous tensor by its sum over all processes."""
        if not self.is_alone:
            import torch.distributed as dist

            with self._message(tensor):
                dist.all_reduce(tensor)

    def exchange(self, shares: Sequence[Sequence[Tensor]]) -> None:
        """Replace the tensors of each share by those of the process with its number.

        The tensors of a share have one type, and are one message. All messages are sent at once.
        """
        if self.is_alone:
            return
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            sent = []
            for rank, share in enumerate(shares):
                if share:
                    flat = torch.cat([tensor.flatten() for tensor in share])
                    with self._message(flat):
                        sent.append((rank, share, flat, dist.broadcast(flat, rank, async_op=True)))
            for rank, share, flat, work in sent:
                with _told():
                    work.wait()
                if rank != self.rank:
                    parts = torch.split(flat, [tensor.numel() for tensor in share])
                    for tensor, part in zip(share, parts, strict=True):
                        tensor.copy_(part.view_as(tensor))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, on the CPU. All have the same shape and type."""
        if self.is_alone:
            return [tensor]
        import torch
        import torch.distributed as dist

        mine = tensor.detach().cpu().contiguous()
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with self._message(mine):
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
        with _told():
            dist.broadcast_object_list(values, 0)
        return values[0]  # type: ignore[no-any-return]

    def all(self, value: T) -> list[T]:
        """Return the values of all processes."""
        if self.is_alone:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with _told():
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
            self._wait_for_an_end()
            raise PeerEndedError(failed[0]) from error
        if error is not None:
            raise error

    def _wait_for_an_end(self) -> None:
        """Wait until a process that failed has printed its error and ended.

        torchrun stops the others as soon as one has ended, also before they print.
        """
        import torch.distributed as dist

        with suppress(RuntimeError):
            dist.barrier()

    @contextmanager
    def _message(self, tensor: Tensor) -> Iterator[None]:
        self.messages += 1
        self.bytes += tensor.nbytes
        with _told():
            yield


@contextmanager
def _told() -> Iterator[None]:
    """Turn the errors of a message into those that a user can read."""
    import torch.distributed as dist

    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "imed out" in text or "imeout" in text:
            raise ProcessError(
                "another process did not answer in time; if it was only slow, give torchrun's "
                "command a longer --timeout"
            ) from error
        if isinstance(error, dist.DistNetworkError) or any(it in text for it in _ENDED):
            raise PeerEndedError from error
        raise


def launch_id() -> str:
    """Identifies the command torchrun that started this process; empty without torchrun."""
    run = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if run == "none":  # the default of some rendezvous; the parent stays the same in a restart
        run = f"{platform.node()} {os.getppid()}"
    return run and hashlib.sha256(run.encode()).hexdigest()[:16]


@contextmanager
def joined(timeout_s: float = TIMEOUT_S) -> Iterator[Processes]:
    """Join the processes that torchrun started together with this one; alone without torchrun.

    Args:
        timeout_s: how long to wait for another process, s.

    Raises:
        ProcessError: the others cannot be reached.
    """
    rank, size, local_rank, local_size = (
        int(os.environ.get(name, default))
        for name, default in (
            ("RANK", "0"),
            ("WORLD_SIZE", "1"),
            ("LOCAL_RANK", "0"),
            ("LOCAL_WORLD_SIZE", "1"),
        )
    )
    if size == 1:
        yield Processes()
        return
    import torch
    import torch.distributed as dist

    if os.environ.get("OMP_NUM_THREADS", "1") == "1":  # torchrun's default
        torch.set_num_threads(max(1, usable_cpus() // local_size))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:  # also what torch.distributed raises
        first_line = str(error).partition("\n")[0]
        raise ProcessError(
            f"the other processes cannot be reached: {first_line:.200}; start them with torchrun, "
            "and see docs/distributed.md"
        ) from error
    yield Processes(rank, size, local_rank)
    dist.destroy_process_group()  # after an error, the end of the process closes the connections
