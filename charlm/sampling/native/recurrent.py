"""The recurrent networks in C (kernels/c/recurrent.c), with the equations of numpy/recurrent.py."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from charlm.config.shapes import GATES
from charlm.data.vocab import Ids
from charlm.sampling.engine import Engine
from charlm.sampling.native.code import Kernel
from charlm.sampling.native.matrix import Array, CMatrix, Matrix, address, pointer, size
from charlm.sampling.numpy.recurrent import Recurrent

KINDS = ("rnn", "gru", "lstm")  # in the order of the enum in cells.h
# The most characters of a text in one call of the kernel. Between two calls Python can handle
# Ctrl-C, and the number of threads can change.
MAX_STEPS = 64


class _Layer(ctypes.Structure):
    """`Layer` of recurrent.c."""

    _fields_ = [
        *((name, CMatrix) for name in ("W_ih", "W_hh")),
        *((name, pointer) for name in ("h", "c", "next", "packed")),
    ]


class _Network(ctypes.Structure):
    """`Network` of recurrent.c."""

    _fields_ = [
        *((name, size) for name in ("kind", "gates", "B", "T", "D", "V", "n_layer")),
        *((name, pointer) for name in ("layers", "table", "embed")),
        ("head", CMatrix),
        *((name, pointer) for name in ("ids", "x", "packed_x", "logits")),
    ]


class NativeRecurrent(Engine):
    """A recurrent network and its state after reading B texts.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """

    context: int | None = None

    def __init__(self, network: Recurrent) -> None:
        self._network, self.vocab_size = network, network.vocab_size
        self._table = network.table
        if self._table is None and network.embed is None:
            W, b = network.ih[0]
            self._table = np.ascontiguousarray(W + b)  # (V, G*D)
        gates = GATES[network.config.kind]
        self._W_ih = [Matrix(W.T, b[0], gates) for W, b in network.ih]
        self._W_hh = [Matrix(W.T, None if b is None else b[0], gates) for W, b in network.hh]
        W, b = network.head
        self._head = Matrix(W.T, b[0])
        # with a table, W_ih of the first layer is not used
        matrices = [*self._W_ih[self._table is not None :], *self._W_hh, self._head]
        self._kernel = Kernel("recurrent", matrices)
        self._state: Array | None = None  # (L, 1, B, D): h; or (L, 2, B, D) of an LSTM: h and c

    def restart(self) -> None:
        self._state = None

    def select(self, texts: list[int]) -> None:
        if self._state is not None:
            self._set_state(self._state[:, :, texts])

    def read(self, ids: Ids) -> NDArray[np.float32]:
        B, T = ids.shape
        if self._state is None:
            config = self._network.config
            parts = 2 if config.kind == "lstm" else 1
            self._set_state(np.zeros((config.n_layer, parts, B, config.hidden_size), np.float32))
        assert self._c.B == B, "the state is that of another number of texts"
        for t in range(0, T, MAX_STEPS):
            some_ids = np.ascontiguousarray(ids[:, t : t + MAX_STEPS], np.int64)
            self._c.T, self._c.ids = some_ids.shape[1], address(some_ids)
            self._kernel.read(self._c, B, steps=some_ids.shape[1])
        return self._logits.copy()

    def _set_state(self, state: Array) -> None:
        """Use this state, (L, 1 or 2, B, D), and make the struct and the workspace for its B."""
        self._state = state = np.ascontiguousarray(state)
        L, _, B, D = state.shape
        config = self._network.config
        self._kernel.prepare(B)
        self._logits = np.empty((B, self.vocab_size), np.float32)
        workspace = {"x": np.empty((B, D), np.float32), "packed_x": self._kernel.workspace(B, D)}
        next_h = np.empty((L, B, D), np.float32)
        packed_h = [self._kernel.workspace(B, D) for _ in range(L)]
        layers = (_Layer * L)(
            *(
                _Layer(
                    self._W_ih[i].for_texts(B),
                    self._W_hh[i].for_texts(B),
                    address(state[i, 0]),
                    address(state[i, 1]) if config.kind == "lstm" else None,
                    address(next_h[i]),
                    address(packed_h[i]),
                )
                for i in range(L)
            )
        )
        self._arrays = workspace, next_h, packed_h, layers  # kept alive for the struct
        self._c = _Network(
            kind=KINDS.index(config.kind),
            gates=GATES[config.kind],
            B=B,
            D=D,
            V=self.vocab_size,
            n_layer=L,
            layers=ctypes.addressof(layers),
            table=address(self._table),
            embed=address(self._network.embed),
            head=self._head.for_texts(B),
            logits=address(self._logits),
            **{name: address(array) for name, array in workspace.items()},
        )
