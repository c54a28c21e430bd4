"""A decoder-only transformer (Vaswani et al. 2017; Radford et al. 2019).

Shapes: B batch, T time (characters), V vocabulary, D n_embd, L n_layer, H n_head, K = D / H head
width, P characters already in the cache.

    x   = embed(ids) + positions                              (B, T, D)
    x   = x + attention(norm(x));  x = x + mlp(norm(x))       L times
    logits = head(norm(x))                                    (B, T, V)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.config import GPTConfig
from charlm.models.base import CharModel, State


class GPT(CharModel):
    """A stack of pre-norm blocks.

    The state is the key/value cache: k_1, v_1, ... k_L, v_L, each (B, H, P, K).
    """

    compile_pays_on_cuda = True

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
        past = state[0].shape[2] if state else 0  # P
        assert past + ids.shape[1] <= self.context, "more characters than the context holds"
        x, rotation = self.position(self.embed(ids), past)  # (B, T, D)
        x = self.dropout(x)
        cache: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x, k, v = block(x, rotation, state[2 * i : 2 * i + 2] if state else ())
            cache += [k, v] if keep_state else []
        return self.head(self.norm(x)), tuple(cache)

    def hidden_matrices(self) -> list[nn.Parameter]:
        return [p for p in self.blocks.parameters() if p.ndim == 2]

    def _initialise(self, config: GPTConfig) -> None:
        """GPT-2's: normal 0.02, and less for what adds to the residual stream 2L times."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("attention.out.weight", "mlp.out.weight"))
                scale = 1 / math.sqrt(2 * config.n_layer) if residual else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised copy and added to the residual stream."""

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
    """Causal self-attention: softmax(Q K^T / sqrt(K) + mask) V, in H heads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.qk_norm, self.dropout = config.n_head, config.qk_norm, config.dropout
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.out = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x: Tensor, rotation: Tensor | None, cache: State
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) and the cached k, v (B, H, P, K) -> (B, T, D) and k, v (B, H, P+T, K)."""
        B, T, D = x.shape
        q, k, v = self.project(x, rotation)
        if cache:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_causal_mask(T, k.shape[2], x.device) if cache and T > 1 else None,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=not cache,
        )
        return self.out(y.transpose(1, 2).reshape(B, T, D)), k, v

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x (B, T, D), each (B, H, T, K)."""
        B, T, D = x.shape
        heads = self.qkv(x).view(B, T, 3, self.n_head, D // self.n_head)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        if self.qk_norm:  # Henry et al. 2020
            q, k = F.rms_norm(q, q.shape[-1:]), F.rms_norm(k, k.shape[-1:])
        if rotation is not None:
            q, k = _rotate(q, rotation), _rotate(k, rotation)
        return q, k, v


def _causal_mask(T: int, total: int, device: torch.device) -> Tensor:
    """(T, P+T), True where query t may look at a key: at itself and all before it."""
    return torch.ones(T, total, dtype=torch.bool, device=device).tril(diagonal=total - T)


# --- positions -------------------------------------------------------------------------------


class Learned(nn.Module):
    """A learned vector for each of the `context` places."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(config.context, config.n_embd))

    def forward(self, x: Tensor, past: int) -> tuple[Tensor, None]:
        return x + self.table[past : past + x.shape[1]], None


class Sinusoidal(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i/D)), PE(pos, 2i+1) = cos of it (Vaswani et al. 2017, 3.5).

    The embedding is multiplied by sqrt(D), as there (3.4), to stand up to it.
    """

    table: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        angle = _angles(config.context, config.n_embd)  # (context, D/2)
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()  # (context, D)
        self.register_buffer("table", table, persistent=False)
        self.scale = math.sqrt(config.n_embd)

    def forward(self, x: Tensor, past: int) -> tuple[Tensor, None]:
        return x * self.scale + self.table[past : past + x.shape[1]], None


class Rotary(nn.Module):
    """Turns queries and keys by an angle that grows with the place (Su et al. 2021)."""

    table: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        angle = _angles(config.context, config.n_embd // config.n_head)
        table = torch.stack([angle.cos(), angle.sin()]).float()  # (2, context, K/2)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, past: int) -> tuple[Tensor, Tensor]:
        return x, self.table[:, past : past + x.shape[1]]


def _angles(places: int, width: int) -> Tensor:
    """pos / 10000^(2i/width), shape (places, width/2), float64: large angles need it."""
    i = torch.arange(0, width, 2, dtype=torch.float64)
    return torch.outer(torch.arange(places).double(), 10000 ** (-i / width))


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (x_i, x_{i+K/2}) of x (B, H, T, K) by angles given as cos, sin (2, T, K/2)."""
    cos, sin = rotation.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


_POSITIONS = {"learned": Learned, "sinusoidal": Sinusoidal, "rope": Rotary}


# --- MLPs and norms --------------------------------------------------------------------------


class MLP(nn.Module):
    """D -> 4D -> D, with GELU (Hendrycks & Gimpel 2016) or squared ReLU (So et al. 2021)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, config.mlp_width, bias=config.bias)
        self.out = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)
        self.squared_relu = config.mlp == "relu2"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(x))
        return y

    def hidden(self, x: Tensor) -> Tensor:
        """What its neurons do: (B, T, D) -> (B, T, 4D)."""
        y: Tensor = self.up(x)
        return _SquaredReLU.apply(y) if self.squared_relu else F.gelu(y)  # type: ignore[no-untyped-call]


class _SquaredReLU(torch.autograd.Function):
    """relu(x)^2, whose gradient PyTorch would compute in six passes over memory instead of two."""

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
    """out(silu(gate(x)) * up(x)) (Shazeer 2020), about 8/3 D wide, to be as large as the MLP."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.n_embd, 2 * config.mlp_width, bias=config.bias)
        self.out = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(x))
        return y

    def hidden(self, x: Tensor) -> Tensor:
        """What its neurons do: (B, T, D) -> (B, T, width)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        y: Tensor = F.silu(gate) * up
        return y


_MLPS: dict[str, type[MLP | SwiGLU]] = {"gelu": MLP, "relu2": MLP, "swiglu": SwiGLU}


def _norm(config: GPTConfig) -> nn.Module:
    if config.norm == "layernorm":
        return nn.LayerNorm(config.n_embd, bias=config.bias)
    return nn.RMSNorm(config.n_embd)
