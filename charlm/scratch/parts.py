"""The parts of a block of a GPT: attention, layer norm and GELU, each with its derivative.

Shapes: B sequences, T characters, H heads, K width of a head, D width. S is T again: the characters
that are looked at. `kept` is what the derivative needs.
"""

from __future__ import annotations

import math

import numpy as np

from charlm.scratch import Array
from charlm.scratch.functions import softmax


def attention(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    """y_t is the mean of v_0 .. v_t, weighted by how well each k_s answers q_t.

    Args:
        q: (B, H, T, K), the questions (queries).
        k: (B, H, T, K), the keys.
        v: (B, H, T, K), the values.

    Returns:
        y, (B, H, T, K), and kept.
    """
    T, K = q.shape[2:]
    scores = q @ k.swapaxes(2, 3) / math.sqrt(K)  # (B, H, T, K) @ (B, H, K, S) -> (B, H, T, S)
    future = np.triu(np.ones((T, T), dtype=bool), k=1)  # (T, S), true where s > t
    a = softmax(np.where(future, -np.inf, scores))  # (B, H, T, S); e^-inf = 0
    y: Array = a @ v  # (B, H, T, S) @ (B, H, S, K) -> (B, H, T, K)
    return y, (q, k, v, a)


def attention_back(d_y: Array, kept: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """d_q, d_k and d_v from d_y, all (B, H, T, K).

    Softmax: a_s = e^z_s / sum e^z, so by the quotient rule da_s/dz_r = a_s ((s == r) - a_r), and
    d_z_r = sum_s d_a_s da_s/dz_r = a_r (d_a_r - sum_s a_s d_a_s).
    """
    q, k, v, a = kept
    d_v = a.swapaxes(2, 3) @ d_y  # (B, H, S, T) @ (B, H, T, K) -> (B, H, S, K)
    d_a = d_y @ v.swapaxes(2, 3)  # (B, H, T, K) @ (B, H, K, S) -> (B, H, T, S)
    d_scores = a * (d_a - (a * d_a).sum(axis=-1, keepdims=True))  # (B, H, T, S); 0 where a = 0
    d_scores /= math.sqrt(q.shape[-1])  # (B, H, T, S)
    d_q = d_scores @ k  # (B, H, T, S) @ (B, H, S, K) -> (B, H, T, K)
    d_k = d_scores.swapaxes(2, 3) @ q  # (B, H, S, T) @ (B, H, T, K) -> (B, H, S, K)
    return d_q, d_k, d_v


def layer_norm(x: Array, gain: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    """Every row of x with mean 0 and variance 1, then times gain plus bias (Ba et al. 2016).

    Args:
        x: (..., D).
        gain: (D,).
        bias: (D,).

    Returns:
        y, (..., D), and kept.
    """
    centred = x - x.mean(axis=-1, keepdims=True)  # (..., D)
    variance = (centred**2).mean(axis=-1, keepdims=True)  # (..., 1)
    std = np.sqrt(variance + 1e-5)  # (..., 1); never 0
    x_hat = centred / std  # (..., D)
    return x_hat * gain + bias, (x_hat, std, gain)


def layer_norm_back(d_y: Array, kept: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """d_x (..., D), d_gain (D,) and d_bias (D,) from d_y (..., D).

    x_j changes x_hat_i = (x_i - mean) / std in three ways: directly if i = j, by the mean, and by
    std. dmean/dx_j = 1/D, and dstd/dx_j = x_hat_j / D, as std^2 is the mean of (x_i - mean)^2. So
    dx_hat_i/dx_j = ((i == j) - 1/D - x_hat_i x_hat_j / D) / std.
    """
    x_hat, std, gain = kept
    rows = tuple(range(d_y.ndim - 1))  # all axes but the last
    d_gain, d_bias = (d_y * x_hat).sum(axis=rows), d_y.sum(axis=rows)  # (D,), (D,)
    d_hat = d_y * gain  # (..., D)
    by_mean = d_hat.mean(axis=-1, keepdims=True)  # (..., 1)
    by_std = x_hat * (d_hat * x_hat).mean(axis=-1, keepdims=True)  # (..., D)
    return (d_hat - by_mean - by_std) / std, d_gain, d_bias


def gelu(x: Array) -> tuple[Array, tuple[Array, ...]]:
    """y = x P(x), of any shape, and kept (Hendrycks & Gimpel 2016).

    P(x) is the probability that a standard normal number is below x.
    """
    # P(x) = (1 + erf(x / sqrt 2)) / 2; numpy has no erf
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel().tolist()), np.float64, x.size)
    P = (1 + erf.reshape(x.shape)) / 2
    return x * P, (x, P)


def gelu_back(d_y: Array, kept: tuple[Array, ...]) -> Array:
    """d_x from d_y: dy/dx = P(x) + x P'(x), where P' is the normal density."""
    x, P = kept
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    d_x: Array = d_y * (P + x * density)
    return d_x
