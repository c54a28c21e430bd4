"""The forward pass of a vanilla RNN, a GRU or an LSTM for training, by charlm's own kernel.

Shapes: B batch, T time, V vocabulary, D hidden_size, L n_layer, G gates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.kernels.cells import CellKernel, Weights
from charlm.kernels.variants import Variant
from charlm.models.base import CharModel, State
from charlm.models.recurrent import Recurrent


class FusedRecurrent:
    """The forward pass of a recurrent network, its layers by the kernel.

    The state is (h,), and for an LSTM (h, c), each (L, B, D). In a bfloat16 kernel h is bfloat16,
    but for a GRU; the rest is float32. Gradients do not reach the state that a call is given.

    Raises:
        NoKernelError: the kernel is not available on this machine.
    """

    def __init__(self, model: CharModel, variant: Variant) -> None:
        assert isinstance(model, Recurrent)
        self._model, self._rnn, self._kind = model, model.rnn, model.config.kind
        self._kernel = CellKernel(variant, self._kind)

    def __call__(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As the model's `forward`: ids (B, T) to logits (B, T, V) and the state after them."""
        model, rnn = self._model, self._rnn
        after: list[tuple[Tensor, ...]] = []
        weights = self._weights(0)
        x, characters = self._first_input(ids.t().contiguous(), weights)
        if characters is not None:  # x is a table, with W_ih and b in it
            weights = Weights(weights.W_hh, weights.b_n)
        for i in range(rnn.num_layers):
            if i:
                x = F.dropout(x, rnn.dropout, model.training)
                weights, characters = self._weights(i), None
            h, carry = self._state_before(state, i, len(ids))
            x, last = self._kernel.layer(x, characters, weights, h, carry)
            after.append(self._state_after(x, last))
        logits = model.head(model.output_dropout(x))  # (T, B, V)
        return logits.transpose(0, 1), tuple(map(torch.stack, zip(*after, strict=True)))

    def _weights(self, layer: int) -> Weights:
        D = self._rnn.hidden_size
        W_ih, b_ih, b_hh = (
            getattr(self._rnn, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "bias_hh")
        )
        W_hh = self._model.recurrent_matrix(layer)
        if self._kind != "gru":
            return Weights(W_hh, None, W_ih, b_ih + b_hh)
        b = torch.cat([b_ih[: 2 * D] + b_hh[: 2 * D], b_ih[2 * D :]])
        return Weights(W_hh, b_hh[2 * D :], W_ih, b)

    def _first_input(self, ids: Tensor, weights: Weights) -> tuple[Tensor, Tensor | None]:
        """The input of the first layer for ids (T, B), in one of two forms.

        Returns:
            x (T, B, D) and None where input dropout makes positions differ, or a table would be
            larger. Else a table with W_ih x + b of each character, (V, G*D), and the ids.
        """
        model = self._model
        if (model.training and model.input_dropout.p) or ids.numel() < model.vocab_size:
            return model.input_dropout(model.look_up(ids)), None
        assert weights.W_ih is not None
        x = model.look_up(torch.arange(model.vocab_size))
        return F.linear(x, weights.W_ih, weights.b).float(), ids

    def _state_before(
        self, state: State | None, layer: int, B: int
    ) -> tuple[Tensor, Tensor | None]:
        """h and the carry before the first step."""
        if state is None:
            zeros = torch.zeros(B, self._rnn.hidden_size)
            return zeros, None if self._kind == "rnn" else zeros
        if self._kind == "rnn":
            return state[0][layer], None
        return state[0][layer], state[-1][layer].float()

    def _state_after(self, y: Tensor, carry: Tensor | None) -> tuple[Tensor, ...]:
        """A layer's part of the state after its output y (T, B, D)."""
        if self._kind == "gru":
            assert carry is not None
            return (carry,)
        h = y[-1].detach()
        return (h,) if carry is None else (h, carry)
