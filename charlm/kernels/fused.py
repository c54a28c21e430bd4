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


class FusedLSTM:
    """The forward pass of an LSTM, its layers by the kernel.

    The state is (h, c), h in bfloat16 and c in float32, each (L, B, D). Gradients do not reach the
    state that a call is given.
    """

    def __init__(self, model: CharModel, kernel: LSTMKernel) -> None:
        assert isinstance(model, Recurrent)
        assert isinstance(model.rnn, nn.LSTM)
        self._model, self._rnn, self._kernel = model, model.rnn, kernel

    @staticmethod
    def supports(model: object, batch_size: int) -> bool:
        """Whether the kernel supports this model, and is faster for batches of this size."""
        return (
            isinstance(model, Recurrent)
            and isinstance(model.rnn, nn.LSTM)
            and model.rnn.hidden_size % WIDTH_MULTIPLE == 0
            and batch_size >= BATCH_MULTIPLE // 2  # smaller batches would be mostly padding
        )

    def __call__(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As the model's `forward`: ids (B, T) to logits (B, T, V) and the state after them."""
        rnn, B, padding = self._rnn, len(ids), -len(ids) % BATCH_MULTIPLE
        shape = (B + padding, rnn.hidden_size)
        x, table_ids = self._first_input(F.pad(ids.t(), (0, padding)).contiguous())
        hs, cs = [], []
        for i in range(rnn.num_layers):
            h = torch.zeros(shape) if state is None else F.pad(state[0][i], (0, 0, 0, padding))
            c = torch.zeros(shape) if state is None else F.pad(state[1][i], (0, 0, 0, padding))
            W_hh = self._model.recurrent_matrix(i)
            # (T, B + padding, D), (B + padding, D)
            y, c_last = self._kernel.layer(x, table_ids, W_hh, h.bfloat16(), c.float())
            hs.append(y[-1, :B].detach())
            cs.append(c_last[:B])
            if i + 1 < rnn.num_layers:
                y = F.dropout(y, rnn.dropout, self._model.training)
                x, table_ids = self._input(y, i + 1).bfloat16(), None
        logits = self._model.head(self._model.output_dropout(y[:, :B]))  # (T, B, V)
        return logits.transpose(0, 1), (torch.stack(hs), torch.stack(cs))

    def _first_input(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the first layer adds to its gates for ids (T, B), in one of two forms.

        Returns:
            A table with a row for each character (V, G*D), and the ids. Or, where input dropout
            makes positions differ or a table would be larger, (T, B, G*D) and None.
        """
        model = self._model
        if (model.training and model.input_dropout.p) or ids.numel() < model.vocab_size:
            return self._input(model.input_dropout(model.look_up(ids)), 0).bfloat16(), None
        all_ids = torch.arange(model.vocab_size)
        return self._input(model.look_up(all_ids), 0).float(), ids

    def _input(self, x: Tensor, layer: int) -> Tensor:
        """W_ih x + b_ih + b_hh of a layer: x (..., D) to (..., G*D)."""
        W_ih, b_ih, b_hh = (
            getattr(self._rnn, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "bias_hh")
        )
        return F.linear(x, W_ih, b_ih + b_hh)


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
