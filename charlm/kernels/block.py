"""A transformer block in bfloat16 on a CPU with AMX: block.c as an autograd function.

Shapes: B sequences, T time, D width, H heads of width K = D / H, F width of the MLP.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from charlm.kernels.amx import address, load_amx

SIZE_MULTIPLE = 32  # T, D, K and F must be multiples of this
THREAD_ROWS = 128  # rows of (B*T, D) in a thread's cache: more overflow it, fewer slow the products


class _Block(ctypes.Structure):
    """`Block` of block.c: the same fields in the same order."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("B", "T", "D", "H", "F")),
        *((name, ctypes.c_int) for name in ("layernorm", "qk_norm", "rope", "gelu")),
        *((name, ctypes.c_void_p) for name in ("x", "dout", "out", "cos", "sin")),
        ("weights", ctypes.c_void_p * 6),
        *((name, ctypes.c_void_p) for name in ("gradients", "packed", "workspace")),
        ("group", ctypes.c_size_t),
    ]


@dataclass(frozen=True)
class BlockOptions:
    """The kind of a block.

    Attributes:
        n_head: H.
        layernorm: whether its norms are LayerNorm; else RMSNorm.
        qk_norm: whether queries and keys are normalized.
        gelu: whether the MLP has GELU; else squared ReLU.
    """

    n_head: int
    layernorm: bool
    qk_norm: bool
    gelu: bool


class BlockKernel:
    """The functions of block.c.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self) -> None:
        self._library = load_amx("block")
        self._library.block_room.restype = ctypes.c_size_t
        self._workspace = torch.empty(0)  # kept between calls: the first use of memory is slow
        self._packed = torch.empty(0, dtype=torch.bfloat16)

    def block(
        self, x: Tensor, rotation: Tensor | None, weights: Sequence[Tensor], options: BlockOptions
    ) -> Tensor:
        """Run a block on x (B, T, D), with gradients.

        Args:
            rotation: (2, T, K/2), the cosines and sines of rotary positions, or None.
            weights: of q, k and v (3D, D), of attention's output (D, D), of the MLP (F, D) and
                (D, F), and of the two norms (D,); all float32.

        Returns:
            The output (B, T, D).
        """
        out: Tensor = _Function.apply(self, options, x, rotation, *weights)  # type: ignore[no-untyped-call]
        return out

    def run(
        self,
        x: Tensor,
        rotation: Tensor | None,
        weights: tuple[Tensor, ...],
        options: BlockOptions,
        dout: Tensor | None = None,
        gradients: Tensor | None = None,
    ) -> Tensor:
        """Run the forward pass or, with `dout` and `gradients`, the backward pass.

        Args:
            dout: (B, T, D), the gradient with respect to the output.
            gradients: filled with the gradients with respect to the weights, one after the other.

        Returns:
            The output, or the gradient with respect to x; (B, T, D).
        """
        (B, T, D), F = x.shape, len(weights[2])
        threads, out = min(torch.get_num_threads(), B), torch.empty_like(x)
        block = _Block(B=B, T=T, D=D, H=options.n_head, F=F, x=address(x), out=address(out))
        block.layernorm, block.qk_norm = options.layernorm, options.qk_norm
        block.gelu, block.rope = options.gelu, rotation is not None
        block.weights[:] = [address(weight).value for weight in weights]
        block.group = max(1, min(THREAD_ROWS // T, B // threads))
        if rotation is not None:
            block.cos, block.sin = address(rotation[0]), address(rotation[1])
        if dout is not None and gradients is not None:
            block.dout, block.gradients = address(dout), address(gradients)
        self._set_workspace(block, threads, sum(weight.numel() for weight in weights[:4]))
        run = self._library.block_forward if dout is None else self._library.block_backward
        run(threads, ctypes.byref(block))
        return out

    def _set_workspace(self, block: _Block, threads: int, n_weights: int) -> None:
        needed = threads * self._library.block_room(ctypes.byref(block))
        if self._workspace.numel() < needed:
            self._workspace = torch.empty(needed)
        if self._packed.numel() < 2 * n_weights:
            self._packed = torch.empty(2 * n_weights, dtype=torch.bfloat16)
        block.workspace, block.packed = address(self._workspace), address(self._packed)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: BlockKernel,
        options: BlockOptions,
        x: Tensor,
        rotation: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        x = x.contiguous()
        ctx.kernel, ctx.options = kernel, options
        ctx.save_for_backward(x, rotation, *weights)
        return kernel.run(x, rotation, weights, options)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        x, rotation, *weights = ctx.saved_tensors
        sizes = [weight.numel() for weight in weights]
        gradients = torch.empty(sum(sizes))
        dx = ctx.kernel.run(x, rotation, tuple(weights), ctx.options, dout.contiguous(), gradients)
        parts = (g.view_as(w) for g, w in zip(torch.split(gradients, sizes), weights, strict=True))
        return None, None, dx, None, *parts
