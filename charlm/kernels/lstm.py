"""An LSTM layer in bfloat16 on a CPU with AMX: lstm.c as an autograd function.

Shapes: T time, B batch, D hidden_size, V vocabulary, G = 4 gates in the order i, f, g, o.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from charlm.kernels.amx import address, load_amx

BATCH_MULTIPLE, WIDTH_MULTIPLE = 16, 64  # B and D must be multiples of these


class _Layer(ctypes.Structure):
    """`Layer` of lstm.c: the same fields in the same order."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("T", "B", "D")),
        *((name, ctypes.c_void_p) for name in ("tiles", "table", "ids", "dense", "h", "c")),
        *((name, ctypes.c_void_p) for name in ("gates", "dh_out", "dz", "dh", "dc")),
    ]


class LSTMKernel:
    """The functions of lstm.c.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self) -> None:
        self._library = load_amx("lstm")

    def layer(
        self, x: Tensor, ids: Tensor | None, W_hh: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run one layer over T steps. Gradients reach x and W_hh, but not the state (truncated
        back-propagation through time).

        Args:
            x: W_ih x_t + b_ih + b_hh of the layer. With ids: a table with a row for each character,
                (V, G*D) float32. Without: a row for each position, (T, B, G*D) bfloat16.
            ids: (T, B) int64, or None.
            W_hh: (G*D, D) float32.
            h: (B, D) bfloat16, the hidden state before the first step.
            c: (B, D) float32, the cell state before the first step.

        Returns:
            h_1 .. h_T, (T, B, D) bfloat16, and c_T, (B, D) float32.
        """
        hs, c_last = _Function.apply(self, x, ids, W_hh, h, c)  # type: ignore[no-untyped-call]
        return hs, c_last

    def forward(
        self, x: Tensor, ids: Tensor | None, W_hh: Tensor, h: Tensor, c: Tensor, gates: Tensor
    ) -> None:
        """Fill h and c, (T+1, B, D) each, from their first rows on, and gates (T, B, G*D)."""
        tiles = self._pack("forward", W_hh)
        inputs = {"dense": x} if ids is None else {"table": x, "ids": ids}
        self._run("forward", gates, tiles=tiles, h=h, c=c, **inputs)

    def backward(self, dh_out: Tensor, W_hh: Tensor, c: Tensor, gates: Tensor) -> Tensor:
        """The gradient with respect to the gates before their nonlinearities.

        Args:
            dh_out: (T, B, D) bfloat16, the gradient with respect to h_1 .. h_T.
            W_hh: (G*D, D) float32.
            c: (T+1, B, D), as `forward` filled it.
            gates: (T, B, G*D), as `forward` filled them.

        Returns:
            dz (T, B, G*D) bfloat16.
        """
        dz, dh = torch.empty_like(gates), torch.zeros_like(c[0])
        dc, tiles = torch.zeros_like(dh), self._pack("backward", W_hh)
        self._run("backward", gates, tiles=tiles, c=c, dh_out=dh_out, dz=dz, dh=dh, dc=dc)
        return dz

    def scatter(self, dz: Tensor, ids: Tensor, out: Tensor) -> None:
        """Add each position's row of dz (T, B, G*D) to the row of its character in out (V, G*D).

        Args:
            dz: bfloat16.
            ids: (T, B) int64.
            out: float32, changed in place.
        """
        n, width = ctypes.c_size_t(ids.numel()), ctypes.c_size_t(out.shape[1])
        self._library.lstm_scatter(n, width, address(ids), address(dz), address(out))

    def _pack(self, direction: str, W_hh: Tensor) -> Tensor:
        """W_hh as the bfloat16 tiles that the products of a direction read."""
        tiles = torch.empty(W_hh.numel(), dtype=torch.bfloat16)
        pack = getattr(self._library, f"lstm_pack_{direction}")
        pack(ctypes.c_size_t(W_hh.shape[1]), address(W_hh), address(tiles))
        return tiles

    def _run(self, direction: str, gates: Tensor, **tensors: Tensor) -> None:
        T, B, width = gates.shape
        addresses = {name: address(tensor) for name, tensor in tensors.items()}
        layer = _Layer(T=T, B=B, D=width // 4, gates=address(gates), **addresses)
        run = getattr(self._library, f"lstm_{direction}")
        run(torch.get_num_threads(), ctypes.byref(layer))


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: LSTMKernel,
        x: Tensor,
        ids: Tensor | None,
        W_hh: Tensor,
        h0: Tensor,
        c0: Tensor,
    ) -> tuple[Tensor, Tensor]:
        T = len(x) if ids is None else len(ids)
        B, D = c0.shape
        h, c = torch.empty(T + 1, B, D, dtype=torch.bfloat16), torch.empty(T + 1, B, D)
        h[0], c[0] = h0, c0
        gates = torch.empty(T, B, 4 * D, dtype=torch.bfloat16)
        kernel.forward(x.contiguous(), ids, W_hh.contiguous(), h, c, gates)
        ctx.kernel, ctx.rows = kernel, len(x)
        ctx.save_for_backward(ids, W_hh, h, c, gates)
        c_last = c[T].clone()
        ctx.mark_non_differentiable(c_last)
        return h[1:], c_last

    @staticmethod
    def backward(ctx: Any, dh_out: Tensor, _dc: Tensor) -> tuple[Tensor | None, ...]:
        ids, W_hh, h, c, gates = ctx.saved_tensors
        T, B, width = gates.shape
        dz = ctx.kernel.backward(dh_out.contiguous(), W_hh.contiguous(), c, gates)
        dW_hh = dz.view(T * B, width).t() @ h[:-1].reshape(T * B, -1)  # one product for all steps
        dx = dz
        if ids is not None:
            dx = torch.zeros(ctx.rows, width)
            ctx.kernel.scatter(dz, ids, dx)
        return None, dx, None, dW_hh.float(), None, None
