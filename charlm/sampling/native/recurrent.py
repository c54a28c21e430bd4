"""The recurrent networks in C (charlm/kernels/recurrent.c): the equations of
numpy/recurrent.py, with neither Python nor numpy between them."""

from __future__ import annotations

import ctypes
from copy import copy

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.sampling.native.code import Code
from charlm.sampling.native.matrix import (
    BLOCK,
    Array,
    CMatrix,
    Matrix,
    address,
    pointer,
    rows_room,
    size,
)
from charlm.sampling.numpy.recurrent import GATES, Recurrent

KINDS = list(GATES)  # as recurrent.c numbers them
STRETCH = 64  # characters read without a look at Ctrl-C, or at how many threads are best


class _Layer(ctypes.Structure):
    """`Layer` of recurrent.c."""

    _fields_ = [
        *((name, CMatrix) for name in ("below", "past")),
        *((name, pointer) for name in ("h", "c", "next", "tiles")),
    ]


class _Network(ctypes.Structure):
    """`Network` of recurrent.c."""

    _fields_ = [
        *((name, size) for name in ("kind", "gates", "B", "T", "D", "V", "n_layer")),
        *((name, pointer) for name in ("layers", "table", "embed")),
        ("head", CMatrix),
        *((name, pointer) for name in ("ids", "x", "x_tiles", "logits")),
    ]


class NativeRecurrent:
    """A recurrent network and what it remembers of B texts.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """

    context: int | None = None

    def __init__(self, network: Recurrent) -> None:
        self._network, self.vocab_size = network, network.vocab_size
        self._table = network.table
        if self._table is None and network.embed is None:
            W, b = network.below[0]
            self._table = np.ascontiguousarray(W + b)  # (V, G * D)
        self._below = [Matrix(W.T, b[0]) for W, b in network.below]
        self._past = [Matrix(U.T, None if c is None else c[0]) for U, c in network.past]
        W, b = network.head
        self._head = Matrix(W.T, b[0])
        first = 0 if self._table is None else 1  # matrix that is used
        matrices = [*self._below[first:], *self._past, self._head]
        self._code = Code("recurrent", [] if network.config.hidden_size % BLOCK else matrices)
        self._state: Array | None = None  # h, and of an LSTM c, of each layer: (L, 1 or 2, B, D)

    def fresh(self) -> NativeRecurrent:
        """Another of the same weights, at the beginning of a text."""
        other = copy(self)
        other.restart()
        return other

    def restart(self) -> None:
        """Forget what was read."""
        self._state = None

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts read so far, some perhaps many times."""
        if self._state is not None:
            self._begin(self._state[:, :, texts])

    def read(self, ids: Ids) -> NDArray[np.float32]:
        """Read T characters of each text, ids (B, T); the logits (B, V) of the next."""
        B, T = ids.shape
        if self._state is None:
            config = self._network.config
            parts = 2 if config.kind == "lstm" else 1
            self._begin(np.zeros((config.n_layer, parts, B, config.hidden_size), np.float32))
        assert self._c.B == B, "other texts"
        for t in range(0, T, STRETCH):
            places = np.ascontiguousarray(ids[:, t : t + STRETCH], np.int64)
            self._c.T, self._c.ids = places.shape[1], address(places)
            self._code.read(self._c, B, steps=places.shape[1])
        return self._logits.copy()

    def _begin(self, state: Array) -> None:
        """Go on from a state, of as many texts as that has."""
        self._state = state = np.ascontiguousarray(state)
        L, _, B, D = state.shape
        config, G = self._network.config, GATES[self._network.config.kind]
        self._code.make_tiles(B)
        self._logits = np.empty((B, self.vocab_size), np.float32)
        scratch = {"x": np.empty((B, D), np.float32), "x_tiles": rows_room(B, D)}
        nexts = np.empty((L, B, D), np.float32)
        tiles = [rows_room(B, D) for _ in range(L)]
        layers = (_Layer * L)(
            *(
                _Layer(
                    self._below[i].c,
                    self._past[i].c,
                    *(address(state[i, part]) if part < len(state[i]) else None for part in (0, 1)),
                    address(nexts[i]),
                    address(tiles[i]),
                )
                for i in range(L)
            )
        )
        self._kept = scratch, nexts, tiles, layers
        self._c = _Network(
            kind=KINDS.index(config.kind),
            gates=G,
            B=B,
            D=D,
            V=self.vocab_size,
            n_layer=L,
            layers=ctypes.addressof(layers),
            table=address(self._table),
            embed=address(self._network.embed),
            head=self._head.c,
            logits=address(self._logits),
            **{name: address(array) for name, array in scratch.items()},
        )
