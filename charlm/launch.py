"""This process among those that torchrun started: connecting them, and who reports an error."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from charlm.errors import PeerEndedError, ProcessError
from charlm.machine import usable_cpus
from charlm.processes import Processes, says_ended

TIMEOUT_S = 1800.0  # that a process waits for the others
_MORE_S = 5.0  # after which PyTorch, with the same limit, has reported it
_PRECEDENCE_S = 10.0  # for the first process of a machine, to report an error that all have


@contextmanager
def joined(timeout_s: float = TIMEOUT_S, parent: int | None = None) -> Iterator[Processes]:
    """Join the processes that torchrun started together with this one; alone without torchrun.

    Args:
        timeout_s: how long to wait for another process, s.
        parent: the id of the parent of this process when it began.

    Raises:
        ProcessError: the others cannot be reached.
    """
    rank, size = _number("RANK"), _number("WORLD_SIZE", 1)
    local_size = _number("LOCAL_WORLD_SIZE", 1)
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
    _connect(size, timeout_s, parent)
    processes = Processes(rank, size, _number("LOCAL_RANK"), local_size, parent=parent)
    processes.launched_by = tuple(sorted({*processes.all(_launcher())} - {""}))
    processes.share_memory(timeout_s)
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


def _connect(size: int, timeout_s: float, parent: int | None) -> None:
    """Connect this process with the others.

    PyTorch can wait longer than its timeout, and does not react to signals. So it connects in a
    thread.

    Raises:
        PeerEndedError: another process or torchrun has ended.
        ProcessError: they were not connected in time.
    """
    if _is_launcher_gone():
        raise PeerEndedError
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
        if parent not in (None, os.getppid()):  # torchrun has ended, so no other process will come
            raise PeerEndedError
    if failed or thread.is_alive():
        cause = failed[0] if failed else None
        raise _not_connected(size, timeout_s, str(cause or "no answer")) from cause


def _not_connected(size: int, timeout_s: float, cause: str) -> ProcessError:
    """The error for what PyTorch says about a connection."""
    why = cause.partition("\n")[0].removesuffix(".")
    if says_ended(why):
        return PeerEndedError()
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    if "EADDRINUSE" in why:
        return ProcessError(f"{place}: this port is in use; choose another MASTER_PORT")
    return ProcessError(
        f"the {size} processes of this run were not connected at {place} within {timeout_s:g} s "
        f"({why:.200}); check that all were started and can reach it, or give a longer --timeout"
    )


def _is_launcher_gone() -> bool:
    """Whether torchrun does not listen any more: it ended while it started its processes."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return False
    with suppress(TimeoutError, socket.gaierror):
        try:
            address = os.environ["MASTER_ADDR"], _number("MASTER_PORT")
            socket.create_connection(address, _MORE_S).close()
        except ConnectionRefusedError:
            return True
    return False


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


# --- messages: one process of several prints them ----------------------------------------------


def limit_messages() -> None:
    """Keep PyTorch's messages about connections, of dozens of lines, out of the output.

    The variable must be set before torch is imported. A value set by the user is kept.
    """
    if "RANK" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


def is_one_of_several() -> bool:
    """Whether this process was started together with others."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def name_of_process() -> str:
    """`process 1: ` for the messages of a process that is not the first; empty for the first."""
    rank = os.environ.get("RANK", "0")
    return f"process {rank}: " if is_one_of_several() and rank != "0" else ""


def is_first_here() -> bool:
    """Whether this is the first process of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def give_way() -> None:
    """Let the first process of this machine report an error that all have; torchrun then ends the
    others."""
    if not is_first_here():
        time.sleep(_PRECEDENCE_S)
