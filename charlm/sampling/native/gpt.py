"""The GPT in C (kernels/c/gpt.c), with the equations of numpy/gpt.py."""

from __future__ import annotations

import ctypes
from typing import Self

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.sampling.engine import Engine
from charlm.sampling.native.code import Kernel
from charlm.sampling.native.matrix import (
    Array,
    CMatrix,
    Matrix,
    address,
    aligned_floats,
    pointer,
    round_up,
    size,
)
from charlm.sampling.native.threads import MAX_THREADS
from charlm.sampling.numpy.gpt import GPT, capacity

# in the order of the enums in gpt.c and transformer.h
NORMS, MLPS = ("layernorm", "rmsnorm"), ("gelu", "relu2", "swiglu")
CACHE_MULTIPLE = 16  # gpt.c keeps keys in groups of 16 positions
MATRICES = ("qkv", "out", "up", "down")


class _Norm(ctypes.Structure):
    """`Norm` of gpt.c."""

    _fields_ = [("gain", pointer), ("bias", pointer)]


class _Layer(ctypes.Structure):
    """`Layer` of gpt.c."""

    _fields_ = [
        *((name, _Norm) for name in ("attention_norm", "mlp_norm")),
        *((name, CMatrix) for name in MATRICES),
        *((name, pointer) for name in ("k", "v")),
    ]


class _Network(ctypes.Structure):
    """`Network` of gpt.c."""

    _fields_ = [
        *((name, size) for name in ("B", "T", "P", "capacity", "D", "H", "F", "V", "n_layer")),
        *((name, size) for name in ("norm_kind", "mlp", "qk_norm", "context")),
        *((name, pointer) for name in ("angles", "layers")),
        ("norm", _Norm),
        ("head", CMatrix),
        *((name, pointer) for name in ("x", "y", "wide", "scores", "packed", "logits")),
    ]


class NativeGPT(Engine):
    """A GPT, and the keys and values of what it has read of B texts.

    Raises:
        NoKernelError: there is no C compiler, or it fails.
    """

    def __init__(self, network: GPT) -> None:
        self._network = network
        self.vocab_size, self.context = network.vocab_size, network.context
        config, weights = network.config, network.weights
        up = "gate_up" if config.mlp == "swiglu" else "up"
        parts = ("attention.qkv", "attention.out", f"mlp.{up}", "mlp.out")
        self._layers = [
            [self._matrix(f"blocks.{layer}.{part}") for part in parts]
            for layer in range(config.n_layer)
        ]
        self._head = Matrix(weights["head.weight"])
        self._matrices = [matrix for layer in self._layers for matrix in layer] + [self._head]
        self._kernel = Kernel("gpt", self._matrices)
        self._capacity = 0  # positions in the cache
        self._cache: Array | None = None  # k and v of each block, (L, 2, B, H, K * capacity)
        self._position = 0  # of the next character
        self._c: _Network | None = None

    def fresh(self) -> Self:
        other = super().fresh()
        other._cache, other._c = None, None  # the cache is written in place
        return other

    def restart(self) -> None:
        self._position = 0

    def select(self, texts: list[int]) -> None:
        if self._cache is not None:
            self._move(texts, self._capacity)

    def read(self, ids: Ids) -> NDArray[np.float32]:
        (B, T), network = ids.shape, self._network
        assert self._position + T <= network.config.context, "the context is full"
        B_before = None if self._cache is None else self._cache.shape[2]
        if B_before != B or self._position + T > self._capacity:
            assert B_before == B or not self._position, "the state is of another number of texts"
            self._move(list(range(B)), capacity(self._position + T, network.config.context))
        if self._c is None or (self._c.B, self._c.T) != (B, T):
            self._c = self._make_struct(B, T)
        self._x[:] = network.embedded(ids, self._position)
        self._c.P = self._position
        self._kernel.read(self._c, B, steps=1 if T == 1 else 0)
        self._position += T
        return self._logits.copy()

    def _move(self, texts: list[int], positions: int) -> None:
        """Make a new cache for this number of positions; copy these texts to it, in this order."""
        config, old = self._network.config, self._cache
        K, self._capacity = config.n_embd // config.n_head, round_up(positions, CACHE_MULTIPLE)
        shape = (config.n_layer, 2, len(texts), config.n_head, K * self._capacity)
        self._cache, self._c = np.zeros(shape, np.float32), None
        if old is not None and (used := round_up(self._position, CACHE_MULTIPLE) * K):
            self._cache[..., :used] = old[:, :, texts, :, :used]

    def _make_struct(self, B: int, T: int) -> _Network:
        """The struct and the workspace to read T characters of B texts."""
        config = self._network.config
        positions = self._network.positions(min(self._capacity, config.context))
        self._kernel.prepare(B)
        N, D = B * T, config.n_embd
        max_in = max(matrix.c.I for matrix in self._matrices)
        max_out = max(matrix.c.O for matrix in self._matrices)
        self._x = aligned_floats(B, T, D)
        self._logits = aligned_floats(B, self.vocab_size)
        workspace = {
            "y": aligned_floats(N, max_in),
            "wide": aligned_floats(N, max_out),
            "scores": aligned_floats(MAX_THREADS, self._capacity),
            "packed": self._kernel.workspace(N, max_in),
        }
        layers = (_Layer * config.n_layer)(*(self._layer(i, B) for i in range(config.n_layer)))
        self._arrays = workspace, layers, positions  # kept alive for the struct
        return _Network(
            B=B,
            T=T,
            capacity=self._capacity,
            context=positions.shape[1],
            D=D,
            H=config.n_head,
            F=config.mlp_width,
            V=self.vocab_size,
            n_layer=config.n_layer,
            norm_kind=NORMS.index(config.norm),
            mlp=MLPS.index(config.mlp),
            qk_norm=config.qk_norm,
            angles=address(positions) if config.position == "rope" else None,
            layers=ctypes.addressof(layers),
            norm=self._norm("norm"),
            head=self._head.for_texts(B),
            x=address(self._x),
            logits=address(self._logits),
            **{name: address(array) for name, array in workspace.items()},
        )

    def _layer(self, layer: int, B: int) -> _Layer:
        assert self._cache is not None
        norms = (self._norm(f"blocks.{layer}.{part}_norm") for part in ("attention", "mlp"))
        matrices = (matrix.for_texts(B) for matrix in self._layers[layer])
        return _Layer(*norms, *matrices, *map(address, self._cache[layer]))

    def _norm(self, name: str) -> _Norm:
        weights = self._network.weights
        return _Norm(address(weights[f"{name}.weight"]), address(weights.get(f"{name}.bias")))

    def _matrix(self, name: str) -> Matrix:
        weights = self._network.weights
        return Matrix(weights[f"{name}.weight"], weights.get(f"{name}.bias"))
