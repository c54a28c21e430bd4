"""The forward pass of a GPT for training on a CPU, its blocks by charlm's own kernel.

Shapes: B batch, T time, V vocabulary, D n_embd.
"""

from __future__ import annotations

import torch
from torch import Tensor

from charlm.kernels.blocks import Blocks, BlocksOptions
from charlm.kernels.variants import Variant
from charlm.models.base import CharModel, State
from charlm.models.gpt import GPT, MLP, Block


class FusedGPT:
    """The forward pass of a GPT.

    A call starts from a fresh state and returns no keys and values. Embedding, last norm and output
    layer are the model's own, in float32.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self, model: CharModel, variant: Variant) -> None:
        assert isinstance(model, GPT)
        self.model, self.blocks = model, Blocks(variant)

    def __call__(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As the model's `forward`: ids (B, T) to logits (B, T, V), and no state."""
        assert state is None
        model = self.model
        with torch.autocast("cpu", enabled=False):  # the kernel itself rounds to bfloat16
            x, rotation = model.position(model.embed(ids), 0)  # (B, T, D)
            logits: Tensor = model.head(model.norm(self.run_blocks(model.dropout(x), rotation)))
        return logits, ()

    def run_blocks(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        """The output of all blocks for x (B, T, D)."""
        model, config, block = self.model, self.model.config, self.model.blocks[0]
        assert isinstance(block, Block)
        options = BlocksOptions(
            n_head=config.n_head,
            mlp=config.mlp,
            mlp_width=config.mlp_width,
            layernorm=config.norm == "layernorm",
            qk_norm=config.qk_norm,
            dropout=block.dropout.p if model.training else 0.0,  # a copy may have set it to 0
        )
        weights = [weight for block in model.blocks for weight in _weights(block)]
        return self.blocks(x, rotation, weights, options)


def _weights(block: object) -> list[Tensor | None]:
    """The weights of a block, in the order of `Blocks.__call__`."""
    assert isinstance(block, Block)
    mlp, attention = block.mlp, block.attention
    up = mlp.up if isinstance(mlp, MLP) else mlp.gate_up
    matrices = (attention.qkv, attention.out, up, mlp.out)
    norms = (block.attention_norm, block.mlp_norm)
    return [
        *(matrix.weight for matrix in matrices),
        *(matrix.bias for matrix in matrices),
        *(getattr(norm, name, None) for norm in norms for name in ("weight", "bias")),
    ]
