"""charlm's own kernels for training, as the choice of a run sees them.

Shapes: B batch, T time, V vocabulary, D n_embd.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.kernels.build import NoKernelError
from charlm.kernels.block import SIZE_MULTIPLE, BlockKernel, BlockOptions
from charlm.kernels.muon import MuonKernel
from charlm.kernels.recurrent import FusedRecurrent
from charlm.kernels.variants import Variant, usable_variants
from charlm.models.base import CharModel, State
from charlm.models.gpt import GPT, MLP, Block


Fused = Callable[[Tensor, State | None], tuple[Tensor, State]]


class Kernels:
    """charlm's own kernels for training. Tests replace them."""

    @staticmethod
    def variants(precision: str) -> list[Variant]:
        """The variants to choose from for a precision, auto, fp32 or bf16, on this CPU.

        AMX is several times as fast as all others, so none is beside it.
        """
        usable = usable_variants()
        half = [variant for variant in usable if variant.half][:1]
        single = [variant for variant in usable if not variant.half][:1]
        if precision == "auto" and half and half[0].name == "amx":
            return half
        return half * (precision != "fp32") + single * (precision != "bf16")

    @staticmethod
    def layers(model: CharModel, variant: Variant) -> Callable[[CharModel], Fused]:
        """What makes the forward pass of a model of this kind.

        Raises:
            NoKernelError: the kernel is not available on this machine.
        """
        kind = FusedGPT if isinstance(model, GPT) else FusedRecurrent
        kind(model, variant)  # compiles it
        return functools.partial(kind, variant=variant)

    @staticmethod
    def muon(variant: Variant) -> MuonKernel:
        """The kernel for the steps of Muon.

        Raises:
            NoKernelError: the kernel is not available on this machine.
        """
        return MuonKernel(variant)


class FusedGPT:
    """The forward pass of a GPT, its blocks by the kernel.

    A call starts from a fresh state and returns no keys and values. Embedding, last norm and output
    layer are the model's own, in float32.
    """

    def __init__(self, model: CharModel, variant: Variant) -> None:
        assert isinstance(model, GPT)
        if variant.name != "amx" or not self.supports(model):
            raise NoKernelError("no kernel")
        self._model, self._kernel = model, BlockKernel()

    @staticmethod
    def supports(model: object) -> bool:
        """Whether the kernel supports this model."""
        if not isinstance(model, GPT):
            return False
        block = model.blocks[0]
        assert isinstance(block, Block)
        D, H = block.attention.out.in_features, block.attention.n_head
        return (
            not any(size % SIZE_MULTIPLE for size in (model.context, D, D // H))
            and isinstance(block.mlp, MLP)
            and block.attention.out.bias is None
            and block.dropout.p == 0
        )

    def __call__(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As the model's `forward`: ids (B, T) to logits (B, T, V), and no state."""
        assert state is None
        with torch.autocast("cpu", enabled=False):  # the kernel itself rounds to bfloat16
            return self._forward(ids), ()

    def _forward(self, ids: Tensor) -> Tensor:
        model, T = self._model, ids.shape[1]
        # attention is causal, so padding after the text does not change its logits
        ids = F.pad(ids, (0, -T % SIZE_MULTIPLE))
        x, rotation = model.position(model.embed(ids), 0)  # (B, T, D)
        for block in model.blocks:
            assert isinstance(block, Block)
            assert isinstance(block.mlp, MLP)
            options = BlockOptions(
                n_head=block.attention.n_head,
                layernorm=isinstance(block.attention_norm, nn.LayerNorm),
                qk_norm=block.attention.qk_norm,
                gelu=not block.mlp.squared_relu,
            )
            gain1, qkv, out, gain2, up, down = block.parameters()
            weights = [qkv, out, up, down, gain1, gain2]
            x = self._kernel.block(x, rotation, weights, options)
        logits: Tensor = model.head(model.norm(x[:, :T]))
        return logits
