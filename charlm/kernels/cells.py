"""A layer of a vanilla RNN, a GRU or an LSTM by charlm's own kernel: cells.c as autograd functions.

Shapes: T time, B batch, D hidden_size, I size of the input, V vocabulary, G gates: 1 (RNN), 3 (GRU:
r, z, n) or 4 (LSTM: i, f, g, o).
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from charlm.kernels.matmul import Matmul
from charlm.kernels.variants import Variant, address, load_variant

KINDS = ("rnn", "gru", "lstm")  # in the order of the enum in cells.h
SPARE_ROWS = 16  # after the last row: a block of AMX reads them


@dataclass(frozen=True)
class Weights:
    """The weights of one layer, float32.

    Attributes:
        W_hh: (G*D, D).
        b_n: (D,), the b_hh of a GRU's n; None for other kinds.
        W_ih: (G*D, I), or None where the input is a table.
        b: (G*D,), b_ih + b_hh, without the b_hh of a GRU's n; or None where the input is a table.
    """

    W_hh: Tensor
    b_n: Tensor | None = None
    W_ih: Tensor | None = None
    b: Tensor | None = None


class _Layer(ctypes.Structure):
    """`Layer` of cells.c: the same fields in the same order."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("kind", "T", "B", "D")),
        *((name, ctypes.c_size_t) for name in ("h_stride", "kept_stride", "dz_stride", "x_stride")),
        *((name, ctypes.c_void_p) for name in ("W_hh", "b_n", "table", "ids", "x", "b", "h")),
        *((name, ctypes.c_void_p) for name in ("carry", "kept", "dh_out", "dz", "dh", "dcarry")),
        ("packed", ctypes.c_void_p),
    ]


class CellKernel:
    """The functions of cells.c.

    Args:
        kind: of the cells, rnn, gru or lstm.

    Attributes:
        dtype: of the hidden states.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self, variant: Variant, kind: str) -> None:
        self.kind, self.dtype = kind, variant.dtype
        self._library = load_variant("cells", variant)
        self._library.cells_depth.restype = ctypes.c_size_t
        self._library.cells_packed.restype = ctypes.c_size_t
        self._depth: int = self._library.cells_depth()
        self._matmul = None if variant.half else Matmul(variant)
        self._free: defaultdict[tuple[Any, ...], list[Tensor]] = defaultdict(list)

    def layer(
        self, x: Tensor, ids: Tensor | None, weights: Weights, h: Tensor, carry: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Run one layer over T steps. Gradients do not reach the state (truncated BPTT).

        Args:
            x: the input (T, B, I). Or with ids, a table (V, G*D) float32 of what a character adds
                to the gates, W_ih x + b.
            ids: (T, B) int64, or None.
            h: (B, D), the hidden state before the first step.
            carry: (B, D) float32, what else goes from step to step: c of an LSTM, h of a GRU in
                float32; None for an RNN.

        Returns:
            h_1 .. h_T, (T, B, D) of `dtype`, and the last carry (B, D), or None for an RNN.
        """
        of_layer = (weights.W_ih, weights.b, weights.W_hh, weights.b_n)
        hs, last = _Function.apply(self, x, ids, *of_layer, h, carry)  # type: ignore[no-untyped-call]
        return hs, None if carry is None else last

    # --- for _Function -----------------------------------------------------------------------

    def take(self, rows: int, columns: int, dtype: torch.dtype | None = None) -> Tensor:
        """A matrix (rows, columns) with any content, by default of `dtype`; a new one has zeros."""
        dtype = dtype or self.dtype
        free = self._free[rows, columns, dtype]
        return free.pop() if free else torch.zeros(rows, columns, dtype=dtype)

    def rows(self, n: int, width: int) -> Tensor:
        """A matrix of n rows of numbers for products in C: longer than `width`, with zeros after
        it, if blocks of the products are, and with SPARE_ROWS more."""
        return self.take(n + SPARE_ROWS, -(-width // self._depth) * self._depth)

    def give(self, *matrices: Tensor | None) -> None:
        """Take back matrices of `take` and `rows`. Later calls reuse them, because the first use of
        memory is slow."""
        for matrix in matrices:
            if matrix is not None:
                self._free[(*matrix.shape, matrix.dtype)].append(matrix)

    def product(self, A: Tensor, B: Tensor, out: Tensor | None = None) -> Tensor:
        """A B (M, N) of `dtype`, for matrices A (M, K) and B (K, N)."""
        if self._matmul is not None:
            return self._matmul(A, B, out)
        return torch.mm(A.to(self.dtype), B.to(self.dtype), out=out)

    def run(self, name: str, T: int, B: int, W_hh: Tensor, **tensors: Tensor | None) -> None:
        """Call a function of cells.c with fields of its `Layer`; their strides are set, too."""
        kind, D = KINDS.index(self.kind), W_hh.shape[1]
        packed = self._library.cells_packed(ctypes.c_size_t(kind), ctypes.c_size_t(D))
        workspace = self.take(1, packed)
        layer = _Layer(kind=kind, T=T, B=B, D=D)
        for field, tensor in (tensors | {"W_hh": W_hh, "packed": workspace}).items():
            if tensor is not None:
                setattr(layer, field, address(tensor))
                stride = "x_stride" if field == "table" else f"{field}_stride"
                if hasattr(layer, stride):
                    setattr(layer, stride, tensor.shape[-1])
        getattr(self._library, f"cells_{name}")(torch.get_num_threads(), ctypes.byref(layer))
        self.give(workspace)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: CellKernel,
        x: Tensor,
        ids: Tensor | None,
        W_ih: Tensor | None,
        b: Tensor | None,
        W_hh: Tensor,
        b_n: Tensor | None,
        h0: Tensor,
        carry0: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        (T, B), D = (x.shape[:2] if ids is None else ids.shape), W_hh.shape[1]
        n, W_hh = T * B, W_hh.contiguous()
        h, carry, kept, z = kernel.rows(n + B, D), None, None, None
        h[:B, :D] = h0
        if carry0 is not None:
            carry, kept = kernel.take(n + B, D, torch.float32), kernel.rows(n, 4 * D)
            carry[:B] = carry0
        if W_ih is not None:
            z = kernel.product(x.reshape(n, -1), W_ih.t(), kernel.take(n, len(W_ih)))
        inputs = {"x": z, "b": b} if ids is None else {"table": x, "ids": ids}
        kernel.run("forward", T, B, W_hh, b_n=b_n, h=h, carry=carry, kept=kept, **inputs)
        kernel.give(z)
        ctx.kernel, ctx.T, ctx.B = kernel, T, B
        ctx.save_for_backward(x, ids, W_ih, W_hh, h, carry, kept)
        last = None if carry is None else carry[n:].clone()
        if last is not None:
            ctx.mark_non_differentiable(last)
        return h[B : n + B].view(T, B, -1)[..., :D], last

    @staticmethod
    def backward(ctx: Any, dh_out: Tensor, _dcarry: Tensor | None) -> tuple[Tensor | None, ...]:
        x, ids, W_ih, W_hh, h, carry, kept = ctx.saved_tensors
        kernel, T, B = ctx.kernel, ctx.T, ctx.B
        n, (width, D) = T * B, W_hh.shape
        dz = kernel.rows(n, 4 * D if kernel.kind == "gru" else width)
        states = {"h": h, "carry": carry, "kept": kept, "dh_out": dh_out.contiguous()}
        dh, dcarry = torch.zeros(2, B, D)
        kernel.run("backward", T, B, W_hh, dz=dz, dh=dh, dcarry=dcarry, **states)
        gates, db_n, dW_ih, db = dz[:n, :width], None, None, None
        dW_hh = kernel.product(gates.t(), h[:n, :D]).float()
        if kernel.kind == "gru":  # from here on, n's gate has the gradient of gi, not of gh
            db_n = dz[:n, 2 * D : width].sum(0, dtype=torch.float32)
            dz[:n, 2 * D : width] = dz[:n, width : 4 * D]
        if ids is not None:
            dx = torch.zeros_like(x)
            kernel.run("scatter", T, B, W_hh, dz=dz, table=dx, ids=ids)
        else:
            dx = kernel.product(gates, W_ih).view_as(x)
            dW_ih = kernel.product(gates.t(), x.reshape(n, -1)).float()
            db = gates.sum(0, dtype=torch.float32)
        kernel.give(h, carry, kept, dz)
        return None, dx, None, dW_ih, db, dW_hh, db_n, None, None
