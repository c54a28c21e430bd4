"""Forward passes by our own kernels, in bfloat16 on a CPU with AMX: the same models, faster.

Shapes: B batch, T time, V vocabulary, D hidden_size or n_embd, L n_layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.kernels.block import MULTIPLE, BlockKernel, BlockOptions
from charlm.kernels.lstm import ROWS, UNITS, LSTMKernel
from charlm.models.base import CharModel, State
from charlm.models.gpt import GPT, MLP, Block
from charlm.models.recurrent import Recurrent


class FusedLSTM:
    """What `model` computes, for training: gradients do not reach the state that comes in.

    The states it returns are (h, c), h in bfloat16 and c in float32, each (L, B, D).
    """

    def __init__(self, model: CharModel, kernel: LSTMKernel) -> None:
        assert isinstance(model, Recurrent)
        assert isinstance(model.rnn, nn.LSTM)
        self._model, self._rnn, self._kernel = model, model.rnn, kernel

    @staticmethod
    def supports(model: object, batch_size: int) -> bool:
        """Whether the kernel can do this model, and gains on batches of so many rows."""
        return (
            isinstance(model, Recurrent)
            and isinstance(model.rnn, nn.LSTM)
            and model.rnn.hidden_size % UNITS == 0
            and batch_size >= ROWS // 2  # which are filled up to a multiple of ROWS
        )

    def __call__(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As the model's `forward`: ids (B, T) to logits (B, T, V), and the state after."""
        rnn, B, more = self._rnn, len(ids), -len(ids) % ROWS
        shape = (B + more, rnn.hidden_size)
        x, at = self._first(F.pad(ids.t(), (0, more)).contiguous())
        hs, cs = [], []
        for i in range(rnn.num_layers):
            h = torch.zeros(shape) if state is None else F.pad(state[0][i], (0, 0, 0, more))
            c = torch.zeros(shape) if state is None else F.pad(state[1][i], (0, 0, 0, more))
            W = self._model.recurrent_matrix(i)
            y, last = self._kernel.layer(x, at, W, h.bfloat16(), c.float())  # (T, B, D), (B, D)
            hs.append(y[-1, :B].detach())
            cs.append(last[:B])
            if i + 1 < rnn.num_layers:
                y = F.dropout(y, rnn.dropout, self._model.training)
                x, at = self._contribution(y, i + 1), None
        logits = self._model.head(self._model.output_dropout(y[:, :B]))  # (T, B, V)
        return logits.transpose(0, 1), (torch.stack(hs), torch.stack(cs))

    def _first(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the first layer reads of ids (T, B): a table by character (V, 4D) and the ids.

        Where dropout makes places differ, or there are fewer than characters, it is instead by
        place (T, B, 4D), and no ids.
        """
        model = self._model
        if (model.training and model.input_dropout.p) or ids.numel() < model.vocab_size:
            return self._contribution(model.input_dropout(model.look_up(ids)), 0), None
        everything = torch.arange(model.vocab_size)
        return self._project(model.look_up(everything), 0).float(), ids

    def _contribution(self, x: Tensor, layer: int) -> Tensor:
        """What x (T, B, D) contributes to the gates of a layer (T, B, 4D), in bfloat16."""
        return self._project(x, layer).bfloat16()

    def _project(self, x: Tensor, layer: int) -> Tensor:
        W, *biases = (
            getattr(self._rnn, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "bias_hh")
        )
        return F.linear(x, W, biases[0] + biases[1])


class FusedGPT:
    """What `model` computes, for training: from a fresh state, and without keys and values after.

    Embedding, last norm and output layer are the model's own, in float32.
    """

    def __init__(self, model: CharModel, kernel: BlockKernel) -> None:
        assert isinstance(model, GPT)
        self._model, self._kernel = model, kernel

    @staticmethod
    def supports(model: object) -> bool:
        """Whether the kernel can do this model."""
        if not isinstance(model, GPT):
            return False
        block = model.blocks[0]
        assert isinstance(block, Block)
        D, H = block.attention.out.in_features, block.attention.n_head
        return (
            not any(size % MULTIPLE for size in (model.context, D, D // H))
            and isinstance(block.mlp, MLP)
            and block.attention.out.bias is None
            and block.dropout.p == 0
        )

    def __call__(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As the model's `forward`: ids (B, T) to logits (B, T, V), and no state."""
        assert state is None
        model, T = self._model, ids.shape[1]
        ids = F.pad(ids, (0, -T % MULTIPLE))  # no character sees those after it
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
        return model.head(model.norm(x[:, :T])), ()
