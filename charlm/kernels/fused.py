"""Forward passes for training in bfloat16 on a CPU with AMX, by charlm's own kernels.

Shapes: B batch, T time, V vocabulary, D hidden_size or n_embd, L n_layer, G = 4 gates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.kernels.amx import cpu_has_amx
from charlm.kernels.block import SIZE_MULTIPLE, BlockKernel, BlockOptions
from charlm.kernels.lstm import BATCH_MULTIPLE, WIDTH_MULTIPLE, LSTMKernel
from charlm.kernels.muon import MuonKernel
from charlm.kernels.variants import usable_variants
from charlm.models.base import CharModel, State
from charlm.models.gpt import GPT, MLP, Block
from charlm.models.recurrent import Recurrent


class Kernels:
    """charlm's own kernels for training: which of them this machine and a model can use."""

    available = staticmethod(cpu_has_amx)

    @staticmethod
    def layers(
        model: CharModel, batch_size: int
    ) -> Callable[[CharModel], FusedLSTM | FusedGPT] | None:
        """What makes the forward pass of this model; None if no kernel supports it.

        Args:
            batch_size: B.

        Raises:
            NoKernelError: the kernel is not available on this machine.
        """
        if FusedLSTM.supports(model, batch_size):
            return functools.partial(FusedLSTM, kernel=LSTMKernel())
        if FusedGPT.supports(model):
            return functools.partial(FusedGPT, kernel=BlockKernel())
        return None

    @staticmethod
    def muon(model: CharModel) -> MuonKernel | None:
        """The kernel for the steps of Muon; None if it does not support this model's matrices.

        Raises:
            NoKernelError: the kernel is not available on this machine.
        """
        if not all(map(MuonKernel.supports, model.hidden_matrices())):
            return None
        return MuonKernel(usable_variants()[0])


class FusedGPT:
    """The forward pass of a GPT, its blocks by the kernel.

    A call starts from a fresh state and returns no keys and values. Embedding, last norm and output
    layer are the model's own, in float32.
    """

    def __init__(self, model: CharModel, kernel: BlockKernel) -> None:
        assert isinstance(model, GPT)
        self._model, self._kernel = model, kernel

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
