"""The blocks of a transformer by charlm's own kernel: blocks.c as an autograd function.

Shapes: B sequences, T time, D width, H heads of width K = D / H, F width of the MLP, U = F or, for
SwiGLU, 2F, L layers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from charlm.kernels.variants import Variant, address, load_variant

WEIGHTS = 12  # of a layer, see `Blocks.__call__`
_MLPS = ("gelu", "relu2", "swiglu")  # their numbers in transformer.h
_PLACES = ("weights", "attention", "mlp")  # their numbers in dropout.h


class _Blocks(ctypes.Structure):
    """`Blocks` of blocks.h: the same fields in the same order."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("B", "T", "D", "H", "F", "n_layer")),
        ("seed", ctypes.c_uint64),
        ("dropout", ctypes.c_float),
        *((name, ctypes.c_int) for name in ("layernorm", "qk_norm", "mlp")),
        *((name, ctypes.c_void_p) for name in ("cos", "sin", "weights", "gradients")),
        *((name, ctypes.c_void_p) for name in ("x", "out", "saved", "workspace")),
    ]


@dataclass(frozen=True)
class BlocksOptions:
    """The kind of the blocks.

    Attributes:
        n_head: H.
        mlp: its activation.
        mlp_width: F.
        layernorm: whether the norms are LayerNorm; else RMSNorm.
        qk_norm: whether queries and keys are normalized.
        dropout: its probability, on the attention's weights and on what is added to the residual
            stream.
    """

    n_head: int
    mlp: Literal["gelu", "relu2", "swiglu"]
    mlp_width: int
    layernorm: bool
    qk_norm: bool
    dropout: float = 0.0


class Blocks:
    """The functions of blocks.c.

    Attributes:
        seed: of the masks of the last call with dropout.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self, variant: Variant) -> None:
        self._library = load_variant("blocks", variant)
        # kept between calls: the first use of memory is slow
        self._saved: Tensor | None = None
        self._workspace = torch.empty(0, dtype=torch.uint8)
        self.seed = 0

    def __call__(
        self,
        x: Tensor,
        rotation: Tensor | None,
        weights: Sequence[Tensor | None],
        options: BlocksOptions,
    ) -> Tensor:
        """Run all blocks on x (B, T, D), with gradients. Everything is float32.

        With dropout, a call draws a seed from PyTorch's generator of the CPU.

        Args:
            rotation: (2, T, K/2), the cosines and sines of rotary positions, or None.
            weights: of each layer the matrices for q, k and v (3D, D), of the attention's output
                (D, D), of the MLP (U, D) and (D, F); their biases; and gain and bias of the two
                norms. Biases may be None.

        Returns:
            The output (B, T, D).
        """
        out: Tensor = _Function.apply(self, options, rotation, x, *weights)  # type: ignore[no-untyped-call]
        return out

    def forward(self, call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output (B, T, D), and what `backward` needs besides."""
        out, threads = torch.empty_like(x), torch.get_num_threads()
        blocks, pointers = call.structure(x, out)
        saved = self._give_memory(blocks, threads, self._saved)
        self._saved = None
        self._library.blocks_forward(threads, ctypes.byref(blocks))
        del pointers
        return out, saved

    def backward(
        self, call: Call, x: Tensor, saved: Tensor, dout: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The gradients with respect to x and the weights, from `dout` (B, T, D), that with
        respect to the output."""
        dx, threads = dout.clone(memory_format=torch.contiguous_format), torch.get_num_threads()
        gradients = call.gradients()
        blocks, pointers = call.structure(x, dx, gradients)
        self._give_memory(blocks, threads, saved)
        self._library.blocks_backward(threads, ctypes.byref(blocks))
        self._saved = saved
        del pointers
        return dx, gradients

    def mask(self, p: float, layer: int, place: str, rows: int, width: int) -> Tensor:
        """The masks (rows, width) of the last call with dropout, in a layer; for tests.

        Args:
            p: the probability of dropout.
            place: `weights` of the attention, whose rows are those of (B, H, T); or after the
                `attention` or the `mlp`, whose rows are those of (B, T).
        """
        out = torch.empty(rows, width)
        blocks = _Blocks(seed=self.seed, dropout=p)
        sizes = (ctypes.c_size_t(n) for n in (layer, _PLACES.index(place), rows, width))
        self._library.blocks_mask(ctypes.byref(blocks), *sizes, address(out))
        return out

    def _give_memory(self, blocks: _Blocks, threads: int, saved: Tensor | None) -> Tensor:
        sizes = (ctypes.c_size_t * 2)()
        self._library.blocks_memory(threads, ctypes.byref(blocks), sizes)
        if saved is None or saved.numel() < sizes[0]:
            saved = torch.empty(sizes[0], dtype=torch.uint8)
        if self._workspace.numel() < sizes[1]:
            self._workspace = torch.empty(sizes[1], dtype=torch.uint8)
        blocks.saved, blocks.workspace = address(saved), address(self._workspace)
        return saved


@dataclass(frozen=True)
class Call:
    """What the forward and the backward pass have in common."""

    options: BlocksOptions
    rotation: Tensor | None
    weights: tuple[Tensor | None, ...]
    seed: int = 0

    def gradients(self) -> list[Tensor | None]:
        """Room for the gradients with respect to the weights, in one piece."""
        sizes = [0 if weight is None else weight.numel() for weight in self.weights]
        parts = torch.split(torch.empty(sum(sizes)), sizes)
        return [
            None if weight is None else part.view_as(weight)
            for weight, part in zip(self.weights, parts, strict=True)
        ]

    def structure(
        self, x: Tensor, out: Tensor, gradients: Sequence[Tensor | None] = ()
    ) -> tuple[_Blocks, object]:
        """The structure for C, and an object that must exist as long as the structure is used."""
        (B, T, D), options = x.shape, self.options
        blocks = _Blocks(B=B, T=T, D=D, H=options.n_head, F=options.mlp_width)
        blocks.n_layer, blocks.seed = len(self.weights) // WEIGHTS, self.seed
        blocks.layernorm, blocks.qk_norm = options.layernorm, options.qk_norm
        blocks.mlp, blocks.dropout = _MLPS.index(options.mlp), options.dropout
        if self.rotation is not None:
            blocks.cos, blocks.sin = (address(part) for part in self.rotation)
        pointers = [_pointers(self.weights), _pointers(gradients)]
        blocks.weights, blocks.gradients = map(ctypes.addressof, pointers)
        blocks.x, blocks.out = address(x), address(out)
        return blocks, pointers


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    """An array of the tensors' addresses."""
    assert all(tensor is None or tensor.is_contiguous() for tensor in tensors)
    addresses = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    return (ctypes.c_void_p * len(tensors))(*addresses)


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: Blocks,
        options: BlocksOptions,
        rotation: Tensor | None,
        x: Tensor,
        *weights: Tensor | None,
    ) -> Tensor:
        seed = int(torch.randint(2**63 - 1, ())) if options.dropout else 0
        kernel.seed = seed
        x, call = x.contiguous(), Call(options, rotation, weights, seed)
        ctx.kernel, ctx.options, ctx.seed = kernel, options, seed
        out, saved = kernel.forward(call, x)
        ctx.save_for_backward(saved, rotation, x, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        saved, rotation, x, *weights = ctx.saved_tensors
        call = Call(ctx.options, rotation, tuple(weights), ctx.seed)
        dx, gradients = ctx.kernel.backward(call, x, saved, dout)
        return None, None, None, dx, *gradients
