"""Memory that the processes of one machine share: a faster way than connections to add up tensors.

torch.distributed moves about 1 GB/s between two processes of a machine. Here each process copies
its tensors into its part of the memory, and reads those of the others there. A byte through a
socket says that a process is ready. This orders reads and writes on every CPU, a process that waits
sleeps, and the end of another process is noticed at once.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PART = 1 << 24  # bytes that a process writes before it waits for the others


class SharedMemory:
    """Memory in which the processes of one machine add up and exchange tensors.

    Args:
        rank: the number of this process.
        size: the number of processes.
        file: of 2 * size * PART bytes, the same in all processes.
        peers: connections of process 0 with all others, and of another one with process 0.
    """

    def __init__(self, rank: int, size: int, file: int, peers: Sequence[socket.socket]) -> None:
        import torch

        self._rank, self._size, self._peers, self._current = rank, size, peers, 0
        memory = torch.frombuffer(mmap.mmap(file, 2 * size * PART), dtype=torch.uint8)
        self._halves = memory.view(2, size, PART)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace contiguous tensors of one type by their sums over all processes.

        Each process adds up a share, in the order of the processes. So all get the same bits.
        """
        for pieces in _parts(tensors):
            N = sum(map(len, pieces))
            parts = self._next_half().view(pieces[0].dtype)  # (size, numbers in a part)
            self._write(pieces, parts)
            self._wait()
            own = slice(N * self._rank // self._size, N * (self._rank + 1) // self._size)
            for other in parts[1:]:
                parts[0, own] += other[own]
            self._wait()
            copy_flat(parts[0], pieces)

    def exchange(self, shares: Sequence[Sequence[Tensor]]) -> None:
        """Replace the contiguous tensors of each share by those of the process with its number."""
        for each in zip_longest(*map(_parts, shares), fillvalue=[]):
            half = self._next_half()
            if self._rank < len(each) and each[self._rank]:
                pieces = each[self._rank]
                self._write(pieces, half.view(pieces[0].dtype))
            self._wait()
            for rank, pieces in enumerate(each):
                if pieces and rank != self._rank:
                    copy_flat(half[rank].view(pieces[0].dtype), pieces)

    def _next_half(self) -> Tensor:
        """The half (size, PART) that was not used last.

        No process reads it any more: all have waited for each other since it was used.
        """
        self._current = 1 - self._current
        return self._halves[self._current]

    def _write(self, pieces: list[Tensor], parts: Tensor) -> None:
        """Copy flat pieces into the part of this process."""
        import torch

        torch.cat(pieces, out=parts[self._rank, : sum(map(len, pieces))])

    def _wait(self) -> None:
        """Wait until all processes call this.

        Raises:
            OSError: another process has ended, or does not answer in time.
        """
        if self._rank:
            self._peers[0].send(b"1")
        for peer in self._peers:
            if not peer.recv(1):
                raise ConnectionResetError("closed by peer")
        if not self._rank:
            for peer in self._peers:
                peer.send(b"1")


def _parts(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Split tensors of one type into flat pieces; yield lists with at most PART bytes."""
    import torch

    part: list[Tensor] = []
    free = most = PART // tensors[0].element_size() if tensors else 0
    for piece in chain.from_iterable(torch.split(it.view(-1), most) for it in tensors):
        if len(piece) > free:
            yield part
            part, free = [], most
        part.append(piece)
        free -= len(piece)
    if part:
        yield part


def copy_flat(source: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the numbers at the beginning of a flat tensor into other tensors."""
    import torch

    sizes = [tensor.numel() for tensor in tensors]
    for tensor, found in zip(tensors, torch.split(source[: sum(sizes)], sizes), strict=True):
        tensor.copy_(found.view_as(tensor))


def share_memory(
    rank: int,
    size: int,
    timeout_s: float,
    first: Callable[[str], str],
    all_can: Callable[[bool], bool],
) -> SharedMemory | None:
    """Return memory that all processes share, or None in all of them if that is not possible.

    It has no name in the file system, so that nothing is left, however the processes end.

    Args:
        timeout_s: how long to wait for another process, s.
        first: returns the word of the first process.
        all_can: returns whether all processes say yes.
    """
    with ExitStack() as stack:  # closes the files and the listener, also if the memory is refused
        offer = _Offer.make(size, stack) if rank == 0 else None
        name = first(offer.name if offer else "")
        if not name:
            return None
        peers = [socket.socket(socket.AF_UNIX)] if rank else []
        if not all_can(offer is not None or peers[0].connect_ex(name) == 0):
            return None
        memory = None
        try:
            file = offer.send(peers, timeout_s) if offer else _receive(peers[0], timeout_s, stack)
            memory = SharedMemory(rank, size, file, peers)  # it maps the file, which can be closed
        except (OSError, ValueError):
            for peer in peers:
                peer.close()  # so that the others do not wait for this process
        return memory if all_can(memory is not None) else None


@dataclass(frozen=True)
class _Offer:
    """What process 0 offers to the others: a file, at a socket that they connect to."""

    size: int
    file: int
    listener: socket.socket
    name: str

    @classmethod
    def make(cls, size: int, stack: ExitStack) -> _Offer | None:
        """Allocate the memory and listen, until the stack is closed; None if that fails."""
        with suppress(OSError, AttributeError):  # only Linux has these functions
            file = os.memfd_create("charlm")
            stack.callback(os.close, file)
            os.posix_fallocate(file, 0, 2 * size * PART)  # now, so that no later write fails
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            name = f"\0charlm-{secrets.token_hex(16)}"
            listener.bind(name)
            listener.listen(size)
            listener.setblocking(False)
            return cls(size, file, listener, name)
        return None

    def send(self, peers: list[socket.socket], timeout_s: float) -> int:
        """Send the file to the others, which have connected, and add them to `peers`.

        Processes of another user are refused.
        """
        while len(peers) < self.size - 1:
            peer, _ = self.listener.accept()
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, user, _ = struct.unpack("3i", credentials)
            if user == os.getuid():
                peers.append(peer)
            else:
                peer.close()
        for peer in peers:
            peer.settimeout(timeout_s)
            socket.send_fds(peer, [b"1"], [self.file])
        return self.file


def _receive(peer: socket.socket, timeout_s: float, stack: ExitStack) -> int:
    """Return the file that process 0 sends; the stack closes it."""
    peer.settimeout(timeout_s)
    _, (file,), *_ = socket.recv_fds(peer, 1, 1)
    stack.callback(os.close, file)
    return file
