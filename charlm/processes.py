"""The processes that train a run together. Usually there is one; torchrun starts more.

PyTorch's torch.distributed carries the messages: gloo for tensors on the CPU, NCCL for those on
GPUs. A method that sends messages must be called by all processes, in the same order.
"""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from charlm.errors import CharlmError, PeerEndedError, ProcessError
from charlm.machine import usable_cpus

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
TIMEOUT_S = 1800.0  # that a process waits for the others
_MORE_S = 5.0  # PyTorch reports its own end of the time later
_PRECEDENCE_S = 10.0  # for the first process of a machine, to report an error that all have
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

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        return self.size == 1

    def has_lost_launcher(self) -> bool:
        """Whether the torchrun that started this process has ended, and left it without control."""
        return bool(self.launched_by) and self._parent not in (None, os.getppid())

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

    def send(self, tensors: Sequence[Tensor], rank: int = 0) -> None:
        """Replace tensors of one type by those of a process, in one message."""
        if self.is_alone or not tensors:
            return
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            with self._message(flat):
                dist.broadcast(flat, rank)
            if rank != self.rank:
                parts = torch.split(flat, [tensor.numel() for tensor in tensors])
                for tensor, part in zip(tensors, parts, strict=True):
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
            self.send([found[name]])
        return found

    # --- anything ----------------------------------------------------------------------------

    def first(self, value: T) -> T:
        """Return the value of the first process."""
        if self.is_alone:
            return value
        import torch.distributed as dist

        values: list[Any] = [value]
        with told():
            dist.broadcast_object_list(values, 0)
        return values[0]  # type: ignore[no-any-return]

    def all(self, value: T) -> list[T]:
        """Return the values of all processes."""
        if self.is_alone:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        with told():
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

            with told():
                dist.barrier()

    @contextmanager
    def _message(self, tensor: Tensor) -> Iterator[None]:
        self.messages += 1
        self.bytes += tensor.nbytes
        with told():
            yield


@contextmanager
def told() -> Iterator[None]:
    """Turn the errors of a message into those that a user can read.

    Raises:
        PeerEndedError: another process has ended.
        ProcessError: another process did not answer in time.
    """
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


@contextmanager
def joined(timeout_s: float = TIMEOUT_S, parent: int | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started together with this one; alone without torchrun.

    Args:
        timeout_s: how long to wait for another process, s.
        parent: the id of the parent of this process when it began.

    Raises:
        ProcessError: the others cannot be reached.
    """
    rank, size, local_size = (
        _number("RANK"),
        _number("WORLD_SIZE", 1),
        _number("LOCAL_WORLD_SIZE", 1),
    )
    if size == 1 or "RANK" not in os.environ:
        yield Processes(launched_by=tuple(filter(None, [_launcher()])), parent=parent)
        return
    if rank >= size:
        raise ProcessError(f"RANK is {rank}, but WORLD_SIZE is {size}; number them from 0")
    if "MASTER_ADDR" not in os.environ or not 0 < _number("MASTER_PORT") < 1 << 16:
        raise ProcessError(
            "MASTER_ADDR or MASTER_PORT is not set or not valid; start the processes with torchrun"
        )
    import torch
    import torch.distributed as dist

    if os.environ.get("OMP_NUM_THREADS", "1") == "1":  # torchrun's default
        torch.set_num_threads(max(1, usable_cpus() // max(1, local_size)))
    _meet(size, timeout_s, parent)
    processes = Processes(rank, size, _number("LOCAL_RANK"), local_size, parent=parent)
    processes.launched_by = tuple(sorted({*processes.all(_launcher())} - {""}))
    yield processes
    dist.destroy_process_group()  # after an error, the end of the process closes the connections


def _number(name: str, default: int = 0) -> int:
    """A number of this process from the environment.

    Raises:
        ProcessError: it is no number.
    """
    given = os.environ.get(name, str(default))
    if not (given.isascii() and given.isdecimal()):
        raise ProcessError(f"{name} is {given!r:.80}; set a whole number, as torchrun does")
    return int(given)


def _meet(size: int, timeout_s: float, parent: int | None) -> None:
    """Connect this process with the others.

    PyTorch can wait longer than it was told, and does not react to signals. So it connects in a
    thread.

    Raises:
        PeerEndedError: another process has ended.
        ProcessError: they did not meet in time.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    failed: list[RuntimeError] = []
    limit = timedelta(seconds=timeout_s)

    def connect() -> None:
        try:
            store, rank, _ = next(rendezvous("env://", timeout=limit))
            # torchrun keeps one store for all its restarts, with the addresses of ended processes
            store = PrefixStore(_attempt(), store)
            dist.init_process_group(backend, timeout=limit, world_size=size, rank=rank, store=store)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    end = time.monotonic() + timeout_s + _MORE_S
    while thread.is_alive() and time.monotonic() < end:
        thread.join(1.0)
        if parent not in (None, os.getppid()):  # torchrun has ended, and nobody else will come
            raise PeerEndedError
    if not (failed or thread.is_alive()):
        return
    cause = failed[0] if failed else None
    why = str(cause or "no answer").partition("\n")[0].removesuffix(".")
    if any(it in why for it in _ENDED):
        raise PeerEndedError from cause
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if "EADDRINUSE" in why:
        raise ProcessError(f"{place}: this port is in use; choose another MASTER_PORT") from cause
    raise ProcessError(
        f"the {size} processes of this run did not meet at {place} within {timeout_s:g} s "
        f"({why:.200}); check that all were started and can connect to it, or give a longer "
        "--timeout"
    ) from cause


def _attempt() -> str:
    """What differs between the starts of the processes by one command torchrun."""
    names = ("TORCHELASTIC_RESTART_COUNT", "WORLD_SIZE", "GROUP_WORLD_SIZE")
    return "/".join(os.environ.get(name, "") for name in names)


def _launcher() -> str:
    """Identifies the command torchrun that started this process; empty without torchrun.

    It is the parent, also after a restart. Its run id alone is not enough: a user can give the same
    --rdzv-id twice.
    """
    run, parent, began = os.environ.get("TORCHELASTIC_RUN_ID"), os.getppid(), ""
    if not run:
        return ""
    with suppress(OSError, IndexError):  # Linux
        began = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]
    return hashlib.sha256(f"{run} {platform.node()} {parent} {began}".encode()).hexdigest()[:16]


# --- several processes, one voice --------------------------------------------------------------


def limit_messages() -> None:
    """Keep PyTorch's messages about connections, of dozens of lines, out of the output.

    The variable must be set before torch is imported. A value set by the user is kept.
    """
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


def name_of_process() -> str:
    """`process 1: ` for the messages of a process that is not the first; empty for the first."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" or os.environ.get("WORLD_SIZE", "1") == "1" else f"process {rank}: "


def is_first_here() -> bool:
    """Whether this is the first process of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def give_way() -> None:
    """Let the first process of this machine report an error that all have; torchrun then ends the
    others."""
    if not is_first_here():
        time.sleep(_PRECEDENCE_S)
