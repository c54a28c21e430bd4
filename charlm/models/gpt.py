"""A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019).

Shapes: B batch, T time (characters), V vocabulary, D n_embd, L n_layer, H n_head, K = D / H,
F width of the MLP, N characters already in the cache.

    x = embed(ids) + positions                              (B, T, D)
    x = x + attention(norm(x));  x = x + mlp(norm(x))       L times
    logits = head(norm(x))                                  (B, T, V)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.config import GPTConfig
from charlm.config.model import POSITION_BASE
from charlm.models.base import CharModel, State


class GPT(CharModel):
    """A stack of pre-norm blocks.

    The state is the cache of keys and values: k_1, v_1, ... k_L, v_L, each (B, H, N, K).
    """

    config: GPTConfig

    def __init__(self, config: GPTConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.context: int = config.context
        self.embed = nn.Embedding(vocab_size, config.n_embd)
        self.position = _POSITIONS[config.position](config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = _norm(config)
        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)
        if config.tie_weights:
            self.head.weight = self.embed.weight
        self._initialise(config)

    def forward(
        self, ids: Tensor, state: State | None = None, keep_state: bool = True
    ) -> tuple[Tensor, State]:
        N = state[0].shape[2] if state else 0
        assert N + ids.shape[1] <= self.context, "more characters than the context holds"
        x, rotation = self.position(self.embed(ids), N)  # (B, T, D)
        x = self.dropout(x)
        cache: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x, k, v = block(x, rotation, state[2 * i : 2 * i + 2] if state else ())
            if keep_state:
                cache += [k, v]
        return self.head(self.norm(x)), tuple(cache)

    def hidden_matrices(self) -> list[nn.Parameter]:
        return [p for p in self.blocks.parameters() if p.ndim == 2]

    def _initialise(self, config: GPTConfig) -> None:
        """As GPT-2: normal with standard deviation 0.02, or 0.02 / sqrt(2L) for the 2L matrices
        that add to the residual stream."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("attention.out.weight", "mlp.out.weight"))
                scale = 1 / math.sqrt(2 * config.n_layer) if residual else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


class Block(nn.Module):
    """Attention, then the MLP. Each reads a normalised residual stream and adds to the stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.mlp_norm = _norm(config)
        self.mlp: MLP | SwiGLU = _MLPS[config.mlp](config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, rotation: Tensor | None, cache: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, k, v = self.attention(self.attention_norm(x), rotation, cache)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.mlp_norm(x))), k, v


class Attention(nn.Module):
    """Causal self-attention: softmax(q k^T / sqrt(K) + mask) v in each of H heads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.qk_norm, self.dropout = config.n_head, config.qk_norm, config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.out = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x: Tensor, rotation: Tensor | None, cache: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D), cached k, v (B, H, N, K) to the output (B, T, D) and k, v (B, H, N+T, K)."""
        B, T, D = x.shape
        q, k, v = self.project(x, rotation)
        if cache:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        mask = _causal_mask(T, k.shape[2], x.device) if cache and T > 1 else None
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=not cache)
        return self.out(y.transpose(1, 2).reshape(B, T, D)), k, v

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The queries, keys and values of x (B, T, D), each (B, H, T, K)."""
        B, T, D = x.shape
        heads = self.qkv(x).view(B, T, 3, self.n_head, D // self.n_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        if self.qk_norm:  # Henry et al. 2020
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        if rotation is not None:
            q, k = _rotate(q, rotation), _rotate(k, rotation)
        return q, k, v


def _causal_mask(T: int, n_keys: int, device: torch.device) -> Tensor:
    """(T, N+T), True where a query may look at a key: its own position and all before it."""
    return torch.ones(T, n_keys, dtype=torch.bool, device=device).tril(diagonal=n_keys - T)


# --- positions -------------------------------------------------------------------------------


class Learned(nn.Module):
    """A learned vector for each position of the context."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(config.context, config.n_embd))

    def forward(self, x: Tensor, N: int) -> tuple[Tensor, None]:
        return x + self.table[N : N + x.shape[1]], None


class Sinusoidal(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos of it (Vaswani et al. 2017, 3.5).

    The embedding is multiplied by sqrt(D) (section 3.4), so that PE does not outweigh it.
    """

    table: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        angle = _angles(config.context, config.n_embd)  # (context, D/2)
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()  # (context, D)
        self.register_buffer("table", table, persistent=False)
        self.scale = math.sqrt(config.n_embd)

    def forward(self, x: Tensor, N: int) -> tuple[Tensor, None]:
        return x * self.scale + self.table[N : N + x.shape[1]], None


class Rotary(nn.Module):
    """Rotates queries and keys by angles proportional to the position (Su et al. 2021)."""

    table: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        angle = _angles(config.context, config.n_embd // config.n_head)
        table = torch.stack([angle.cos(), angle.sin()]).float()  # (2, context, K/2)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, N: int) -> tuple[Tensor, Tensor]:
        return x, self.table[:, N : N + x.shape[1]]


def _angles(positions: int, width: int) -> Tensor:
    """pos / 10000^(2i/width), (positions, width/2); in float64, as large angles need it."""
    i = torch.arange(0, width, 2, dtype=torch.float64)
    return torch.outer(torch.arange(positions).double(), POSITION_BASE ** (-i / width))


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs (x_i, x_{i+K/2}) of x (B, H, T, K) by cosines and sines (2, T, K/2)."""
    cos, sin = rotation.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


_POSITIONS = {"learned": Learned, "sinusoidal": Sinusoidal, "rope": Rotary}


# --- MLPs and norms --------------------------------------------------------------------------


class MLP(nn.Module):
    """D -> F -> D, with GELU (Hendrycks & Gimpel 2016) or squared ReLU (So et al. 2021); F = 4D."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, config.mlp_width, bias=config.bias)
        self.out = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)
        self.squared_relu = config.mlp == "relu2"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(x))
        return y

    def hidden(self, x: Tensor) -> Tensor:
        """The activations of the hidden layer: (B, T, D) to (B, T, F)."""
        y: Tensor = self.up(x)
        return _SquaredReLU.apply(y) if self.squared_relu else F.gelu(y)  # type: ignore[no-untyped-call]


class _SquaredReLU(torch.autograd.Function):
    """relu(x)^2. Its backward pass reads memory twice; PyTorch's own would need six passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.relu(x)
        ctx.save_for_backward(y)
        return y * y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        product: Tensor = grad * y
        return product.mul_(2)


class SwiGLU(nn.Module):
    """out(silu(gate(x)) * up(x)) (Shazeer 2020). F is about 8/3 D: as many weights as `MLP`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.n_embd, 2 * config.mlp_width, bias=config.bias)
        self.out = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(x))
        return y

    def hidden(self, x: Tensor) -> Tensor:
        """The activations of the hidden layer: (B, T, D) to (B, T, F)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        y: Tensor = F.silu(gate) * up
        return y


_MLPS: dict[str, type[MLP | SwiGLU]] = {"gelu": MLP, "relu2": MLP, "swiglu": SwiGLU}


def _norm(config: GPTConfig) -> nn.Module:
    if config.norm == "layernorm":
        return nn.LayerNorm(config.n_embd, bias=config.bias)
    return nn.RMSNorm(config.n_embd)
