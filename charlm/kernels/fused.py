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
from charlm.kernels.gpt import FusedGPT
from charlm.kernels.lstm import BATCH_MULTIPLE, WIDTH_MULTIPLE, LSTMKernel
from charlm.kernels.newton_schulz import NewtonSchulz
from charlm.kernels.variants import usable_variants
from charlm.models.base import CharModel, State
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
            return functools.partial(FusedGPT, variant=usable_variants()[0])
        return None

    @staticmethod
    def muon(model: CharModel) -> NewtonSchulz | None:
        """The kernel for the steps of Muon; None if it does not support this model's matrices.

        Raises:
            NoKernelError: the kernel is not available on this machine.
        """
        return NewtonSchulz() if all(map(NewtonSchulz.supports, model.hidden_matrices())) else None


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
