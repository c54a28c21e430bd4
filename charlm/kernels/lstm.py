"""An LSTM layer in bfloat16 on a CPU with AMX: lstm.c as a function that autograd knows.

Shapes: T time, B batch, H units, V vocabulary, G = 4H gates in the order i, f, g, o.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from charlm.kernels.amx import address, load_amx

ROWS, UNITS = 16, 64  # the batch and the units are multiples of these


class _Layer(ctypes.Structure):
    """`Layer` of lstm.c."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("T", "B", "H")),
        *((name, ctypes.c_void_p) for name in ("tiles", "table", "ids", "dense", "h", "c")),
        *((name, ctypes.c_void_p) for name in ("gates", "dh_out", "dz", "dh", "dc")),
    ]


class LSTMKernel:
    """The functions of lstm.c.

    Raises:
        NoKernelError: they are not to be had on this machine.
    """

    def __init__(self) -> None:
        self._library = load_amx("lstm")

    def layer(
        self, x: Tensor, ids: Tensor | None, W: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A layer from the state h (bfloat16), c (float32), both (B, H).

        Args:
            x: (V, G) float32, what each character contributes to the gates; or, without ids,
                (T, B, G) bfloat16, what each place does.
            ids: (T, B) int64.
            W: (G, H) float32, the recurrent matrix.

        Returns:
            h_1 .. h_T (T, B, H) bfloat16, through which gradients reach x and W but not the state,
            as truncated back-propagation has it; and the last c (B, H).
        """
        hs, cs = _Function.apply(self, x, ids, W, h, c)  # type: ignore[no-untyped-call]
        return hs, cs

    def forward(
        self, x: Tensor, ids: Tensor | None, W: Tensor, h: Tensor, c: Tensor, gates: Tensor
    ) -> None:
        """Fill h (T+1, B, H), c (T+1, B, H) from their first rows on, and gates (T, B, G)."""
        tiles = self._pack("forward", W)
        what = {"dense": x} if ids is None else {"table": x, "ids": ids}
        self._run("forward", gates, tiles=tiles, h=h, c=c, **what)

    def backward(self, dh_out: Tensor, W: Tensor, c: Tensor, gates: Tensor) -> Tensor:
        """The gradient by the gates' inputs (T, B, G) bfloat16, of that by h_1 .. h_T (T, B, H)."""
        dz, dh = torch.empty_like(gates), torch.zeros_like(c[0])
        dc, tiles = torch.zeros_like(dh), self._pack("backward", W)
        self._run("backward", gates, tiles=tiles, c=c, dh_out=dh_out, dz=dz, dh=dh, dc=dc)
        return dz

    def scatter(self, dz: Tensor, ids: Tensor, out: Tensor) -> None:
        """Add the rows of dz (T, B, G) to those of out (V, G) float32 that ids (T, B) name."""
        n, width = ctypes.c_size_t(ids.numel()), ctypes.c_size_t(out.shape[1])
        self._library.lstm_scatter(n, width, address(ids), address(dz), address(out))

    def _pack(self, direction: str, W: Tensor) -> Tensor:
        """W as the tiles that products of a direction take."""
        tiles = torch.empty(W.numel(), dtype=torch.bfloat16)
        pack = getattr(self._library, f"lstm_pack_{direction}")
        pack(ctypes.c_size_t(W.shape[1]), address(W), address(tiles))
        return tiles

    def _run(self, direction: str, gates: Tensor, **tensors: Tensor) -> None:
        T, B, G = gates.shape
        places = {name: address(tensor) for name, tensor in tensors.items()}
        layer = _Layer(T=T, B=B, H=G // 4, gates=address(gates), **places)
        run = getattr(self._library, f"lstm_{direction}")
        run(torch.get_num_threads(), ctypes.byref(layer))


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: LSTMKernel,
        x: Tensor,
        ids: Tensor | None,
        W: Tensor,
        h0: Tensor,
        c0: Tensor,
    ) -> tuple[Tensor, Tensor]:
        T = len(x) if ids is None else len(ids)
        B, H = c0.shape
        h, c = torch.empty(T + 1, B, H, dtype=torch.bfloat16), torch.empty(T + 1, B, H)
        h[0], c[0] = h0, c0
        gates = torch.empty(T, B, 4 * H, dtype=torch.bfloat16)
        kernel.forward(x.contiguous(), ids, W.contiguous(), h, c, gates)
        ctx.kernel, ctx.rows = kernel, len(x)
        ctx.save_for_backward(ids, W, h, c, gates)
        last = c[T].clone()
        ctx.mark_non_differentiable(last)
        return h[1:], last

    @staticmethod
    def backward(ctx: Any, dh_out: Tensor, _dc: Tensor) -> tuple[Tensor | None, ...]:
        ids, W, h, c, gates = ctx.saved_tensors
        T, B, G = gates.shape
        dz = ctx.kernel.backward(dh_out.contiguous(), W.contiguous(), c, gates)
        dW = dz.view(T * B, G).t() @ h[:-1].reshape(T * B, -1)  # summed over time at once
        dx = dz
        if ids is not None:
            dx = torch.zeros(ctx.rows, G)
            ctx.kernel.scatter(dz, ids, dx)
        return None, dx, None, dW.float(), None, None
