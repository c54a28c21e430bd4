"""The GPT in C (charlm/kernels/gpt.c): the equations of networks/gpt.py, with neither Python nor
numpy between them."""

from __future__ import annotations

import ctypes
from copy import copy

import numpy as np
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.sampling.native.code import Code
from charlm.sampling.native.matrix import (
    Array,
    CMatrix,
    Matrix,
    address,
    floats,
    pointer,
    round_up,
    rows_room,
    size,
)
from charlm.sampling.native.threads import ENOUGH
from charlm.sampling.numpy.gpt import GPT

NORMS, MLPS = ("layernorm", "rmsnorm"), ("gelu", "relu2", "swiglu")  # as gpt.c numbers them
MULTIPLE = 16  # of which the places in the cache are
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
        *((name, size) for name in ("B", "T", "P", "room", "D", "H", "M", "V", "n_layer")),
        *((name, size) for name in ("norm_kind", "mlp", "qk_norm", "places")),
        *((name, pointer) for name in ("angles", "layers")),
        ("norm", _Norm),
        ("head", CMatrix),
        *((name, pointer) for name in ("x", "y", "wide", "scores", "tiles", "logits")),
    ]


class NativeGPT:
    """A GPT and the keys and values of what it has read of B texts.

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
        self._code = Code("gpt", self._matrices)
        self._room = round_up(config.context, MULTIPLE)  # places in the cache
        self._cache: Array | None = None  # k and v of each block, (L, 2, B, H, K * room)
        self._past = 0
        self._c: _Network | None = None

    def fresh(self) -> NativeGPT:
        """Another of the same weights, at the beginning of a text."""
        other = copy(self)
        other._cache, other._past, other._c = None, 0, None
        return other

    def restart(self) -> None:
        """Forget what was read; its room is used again."""
        self._past = 0

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts read so far, some perhaps many times."""
        if self._cache is not None:
            width = self._cache.shape[-1] // self._room
            used = round_up(self._past, MULTIPLE) * width  # the rest need not be touched
            cache = self._empty_cache(len(texts))
            cache[..., :used] = self._cache[:, :, texts, :, :used]
            self._cache, self._c = cache, None

    def read(self, ids: Ids) -> NDArray[np.float32]:
        """Read T characters of each text, ids (B, T); the logits (B, V) of the next."""
        (B, T), network = ids.shape, self._network
        assert self._past + T <= network.config.context, "more characters than the context holds"
        if self._cache is None or self._cache.shape[2] != B:
            assert not self._past, "other texts"
            self._cache, self._c = self._empty_cache(B), None
        if self._c is None or (self._c.B, self._c.T) != (B, T):
            self._c = self._make_room(B, T)
        self._x[:] = network.embedded(ids, self._past)
        self._c.P = self._past
        self._code.read(self._c, B, steps=1 if T == 1 else 0)
        self._past += T
        return self._logits.copy()

    def _empty_cache(self, B: int) -> Array:
        config = self._network.config
        heads = (B, config.n_head, config.n_embd // config.n_head * self._room)
        return np.zeros((config.n_layer, 2, *heads), np.float32)

    def _make_room(self, B: int, T: int) -> _Network:
        """Everything that C needs to read T characters of B texts."""
        config, positions = self._network.config, self._network.positions
        self._code.make_tiles(B)
        N, D, widest = B * T, config.n_embd, max(matrix.c.I for matrix in self._matrices)
        self._x = floats(B, T, D)
        self._logits = floats(B, self.vocab_size)
        room = {
            "y": floats(N, widest),
            "wide": floats(N, max(matrix.c.O for matrix in self._matrices)),
            "scores": floats(ENOUGH, self._room),
            "tiles": rows_room(N, widest),
        }
        layers = (_Layer * config.n_layer)(*(self._layer(i, B) for i in range(config.n_layer)))
        self._kept = room, layers
        return _Network(
            B=B,
            T=T,
            room=self._room,
            places=config.context,
            D=D,
            H=config.n_head,
            M=config.mlp_width,
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
            **{name: address(array) for name, array in room.items()},
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
