"""Vanilla RNN, GRU and LSTM.

Shapes: B batch, T time (characters), V vocabulary, D hidden_size, L n_layer, G gates (1, 3 or 4).

PyTorch's layers do the arithmetic. A layer reads x_t, which is the character (first layer) or the
hidden state of the layer below, and its own h_{t-1}. It computes, for all gates at once,

    gi = W_ih x_t + b_ih        gh = W_hh h_{t-1} + b_hh        (G*D,) each

and splits both into G parts, in the order r, z, n for a GRU and i, f, g, o for an LSTM. Here sigma
is the logistic function and * is elementwise:

    rnn    h_t = tanh(gi + gh)                         (Elman 1990)

    gru    r_t = sigma(gi_r + gh_r)                    (Cho et al. 2014; the reset gate acts after
           z_t = sigma(gi_z + gh_z)                    the product with W_hh, as in cuDNN)
           n_t = tanh(gi_n + r_t * gh_n)
           h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    lstm   i_t = sigma(gi_i + gh_i)                    (Hochreiter & Schmidhuber 1997;
           f_t = sigma(gi_f + gh_f)                    forget gate: Gers et al. 2000)
           g_t = tanh(gi_g + gh_g)
           o_t = sigma(gi_o + gh_o)
           c_t = f_t * c_{t-1} + i_t * g_t
           h_t = o_t * tanh(c_t)

Both biases are trained, and both count as parameters. `charlm.sampling.numpy.recurrent` computes
the same equations in NumPy, for sampling.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from charlm.config import RecurrentConfig
from charlm.models.base import CharModel, State

_LAYERS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class LockedDropout(nn.Module):
    """Dropout of the same units at every position of a sequence (Gal & Ghahramani 2016)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x (T, B, D)."""
        if not (self.training and self.p):
            return x
        return x * F.dropout(torch.ones_like(x[:1]), self.p)


class Recurrent(CharModel):
    """An RNN, GRU or LSTM between an embedding and a linear output layer.

    The state is (h,), and for an LSTM (h, c), each (L, B, D).
    """

    def __init__(self, config: RecurrentConfig, vocab_size: int) -> None:
        super().__init__()
        D = config.hidden_size
        self.config, self.vocab_size = config, vocab_size
        self.embed = nn.Embedding(vocab_size, D) if config.input == "embedding" else None
        self.rnn = _LAYERS[config.kind](
            input_size=D if self.embed else vocab_size,
            hidden_size=D,
            num_layers=config.n_layer,
            dropout=config.dropout,
        )
        self.head = nn.Linear(D, vocab_size)
        self.input_dropout = LockedDropout(config.input_dropout)
        self.output_dropout = LockedDropout(config.output_dropout)
        self.weight_dropout = config.weight_dropout
        self._initialise(config)

    def forward(
        self, ids: Tensor, state: State | None = None, keep_state: bool = True
    ) -> tuple[Tensor, State]:
        x = self.look_up(ids.t())  # (B, T) -> (T, B, D), or (T, B, V) one-hot
        # nn.LSTM takes and returns (h, c); nn.RNN and nn.GRU take and return h alone
        hx = state[0] if state is not None and len(state) == 1 else state
        y, hx = self._run(self.input_dropout(x), hx)  # (T, B, D)
        logits = self.head(self.output_dropout(y))  # (T, B, V)
        after: State = hx if isinstance(hx, tuple) else (hx,)
        return logits.transpose(0, 1), after if keep_state else ()

    def hidden_matrices(self) -> list[nn.Parameter]:
        first = {"weight_ih_l0"} if self.embed is None else set()
        return [p for name, p in self.rnn.named_parameters() if p.ndim == 2 and name not in first]

    def recurrent_matrix(self, layer: int) -> Tensor:
        """W_hh of a layer, (G*D, D); in training with weight_dropout (DropConnect: Wan et al. 2013;
        Merity et al. 2018)."""
        W_hh: Tensor = getattr(self.rnn, f"weight_hh_l{layer}")
        return F.dropout(W_hh, self.weight_dropout, self.training)

    def _run(self, x: Tensor, hx: Any) -> tuple[Tensor, Any]:
        """Run the layers on x (T, B, D or V); return y (T, B, D) and the state after it."""
        if not (self.training and self.weight_dropout):
            y, hx = self.rnn(x, hx)
            return y, hx
        names = {f"weight_hh_l{i}": self.recurrent_matrix(i) for i in range(self.rnn.num_layers)}
        y, hx = functional_call(self.rnn, names, (x, hx))
        return y, hx

    def look_up(self, ids: Tensor) -> Tensor:
        """The input of the first layer for ids of any shape: (*ids.shape, D), or V for one-hot."""
        if self.embed is not None:
            x: Tensor = self.embed(ids)
            return x
        return F.one_hot(ids, self.vocab_size).to(self.head.weight.dtype)

    @torch.no_grad()
    def _initialise(self, config: RecurrentConfig) -> None:
        """W_hh orthogonal for each gate (Saxe et al. 2014), the forget gate's bias 1 (Jozefowicz et
        al. 2015), other biases 0, and the rest as in PyTorch."""
        for name, parameter in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                for gate in parameter.split(config.hidden_size):  # (G*D, D) to G times (D, D)
                    nn.init.orthogonal_(gate)
            elif name.startswith("bias"):
                parameter.zero_()
                if config.kind == "lstm" and name.startswith("bias_ih"):
                    parameter[config.hidden_size : 2 * config.hidden_size] = 1.0
        self.head.bias.zero_()
        if config.tie_weights and self.embed is not None:
            self.head.weight = self.embed.weight
            nn.init.normal_(self.embed.weight, std=config.hidden_size**-0.5)
