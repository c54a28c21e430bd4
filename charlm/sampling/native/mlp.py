"""The MLP in C (kernels/c/mlp.c), with the equations of numpy/mlp.py."""

from __future__ import annotations

import ctypes
from typing import Self

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.sampling.engine import EngineOfNetwork
from charlm.sampling.native.code import Kernel
from charlm.sampling.native.matrix import CMatrix, Matrix, address, aligned_floats, pointer, size
from charlm.sampling.numpy.mlp import MLP

ACTIVATIONS = ("sigmoid", "tanh", "relu")  # in the order of the enum in mlp.c


class _Network(ctypes.Structure):
    """`Network` of mlp.c."""

    _fields_ = [
        *((name, size) for name in ("activation", "B", "N", "D", "V", "n_layer")),
        *((name, pointer) for name in ("table", "rows", "b", "layers")),
        ("head", CMatrix),
        *((name, pointer) for name in ("x", "h", "packed", "logits")),
    ]


class NativeMLP(EngineOfNetwork[MLP]):
    """An MLP and the last characters that it read of B texts.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """

    def __init__(self, network: MLP) -> None:
        super().__init__(network.fresh())
        weights, table = network.weights, network.table
        self._table = None if table is None else np.ascontiguousarray(table)
        self._layers = [
            Matrix(weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"])
            for i in range(network.config.n_layer)
        ]
        self._head = Matrix(weights["head.weight"], weights["head.bias"])
        # with a table, the matrix of the first layer is not used
        self._matrices = [*self._layers[self._table is not None :], self._head]
        self._kernel = Kernel("mlp", self._matrices)
        self._c: _Network | None = None

    def fresh(self) -> Self:
        other = super().fresh()
        other._c = None  # its workspace is written in place
        return other

    def read(self, ids: Ids) -> NDArray[np.float32]:
        seen, B = self._network.look_back(ids), len(ids)  # (B, N)
        if self._c is None or self._c.B != B:
            self._c = self._make_struct(B)
        if self._table is None:
            self._x[:] = self._network.embedded(seen)
        else:
            rows = np.ascontiguousarray(self._network.rows_of(seen), np.int64)
            self._c.rows = address(rows)
        self._kernel.read(self._c, B, steps=1)
        return self._logits.copy()

    def _make_struct(self, B: int) -> _Network:
        """The struct and the workspace for B texts."""
        config, weights = self._network.config, self._network.weights
        self._kernel.prepare(B)
        L, D = config.n_layer, config.hidden_size
        self._logits = aligned_floats(B, self.vocab_size)
        self._x = aligned_floats(B, 0 if self._table is not None else self._layers[0].c.I)
        layers = (CMatrix * L)(*(matrix.for_texts(B) for matrix in self._layers))
        widest = max(matrix.c.I for matrix in self._matrices)
        h, packed = aligned_floats(L, B, D), self._kernel.workspace(B, widest)
        self._arrays = layers, h, packed  # kept alive for the struct
        return _Network(
            activation=ACTIVATIONS.index(config.activation),
            B=B,
            N=config.context,
            D=D,
            V=self.vocab_size,
            n_layer=L,
            table=address(self._table),
            b=address(weights["layers.0.bias"]),
            layers=ctypes.addressof(layers),
            head=self._head.for_texts(B),
            x=address(self._x),
            h=address(h),
            packed=address(packed),
            logits=address(self._logits),
        )
