"""The functions that all networks here use, with their derivatives.

d_y is the derivative of the loss with respect to y. If y = f(x), then d_x is computed from d_y by
the chain rule. Every function with `_back` in its name does this.

Shapes: `...` stands for any axes; N and M are the widths of the input and the output of a layer.
"""

from __future__ import annotations

import numpy as np

from charlm.scratch import Array, Ids


def sigmoid(x: Array) -> Array:
    """s = 1 / (1 + e^-x), of any shape; ds/dx = s (1 - s)."""
    # tanh(x/2) = (1 - e^-x) / (1 + e^-x), so this is s; and e^-x would overflow for x = -1000
    s: Array = (1 + np.tanh(x / 2)) / 2
    return s


def softmax(x: Array) -> Array:
    """p_i = e^x_i / sum_j e^x_j over the last axis: positive numbers with the sum 1."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # (..., N); e^-max cancels, nothing overflows
    p: Array = e / e.sum(axis=-1, keepdims=True)  # (..., N)
    return p


def cross_entropy(logits: Array, targets: Ids) -> tuple[float, Array]:
    """How surprised the model is by the characters that came.

    Args:
        logits: (B, T, V), the score of each possible next character.
        targets: (B, T), the characters that came.

    Returns:
        The loss, the mean of -ln p(target) in nats per character, and d_logits, (B, T, V).
    """
    x = logits - logits.max(axis=-1, keepdims=True)  # (B, T, V)
    one_hot = targets[..., None] == np.arange(x.shape[-1])  # (B, T, V), 1 or 0
    # -ln p(target) = -ln (e^x_target / sum_j e^x_j) = ln sum_j e^x_j - x_target
    losses = np.log(np.exp(x).sum(axis=-1)) - (x * one_hot).sum(axis=-1)  # (B, T)
    # d(ln sum_j e^x_j)/dx_i = p_i;  d(x_target)/dx_i = one_hot_i;  the mean divides by B T
    d_logits = (softmax(logits) - one_hot) / targets.size  # (B, T, V)
    return float(losses.mean()), d_logits


def linear(x: Array, W: Array, b: Array) -> Array:
    """y = W x + b for every row x.

    Args:
        x: (..., N).
        W: (M, N).
        b: (M,).

    Returns:
        y, (..., M).
    """
    y: Array = x @ W.T + b  # (..., N) @ (N, M) + (M,) -> (..., M)
    return y


def linear_back(d_y: Array, x: Array, W: Array) -> tuple[Array, Array, Array]:
    """d_x (..., N), d_W (M, N) and d_b (M,) from d_y (..., M); see `linear`.

    y_i = sum_j W_ij x_j + b_i, so dy_i/dx_j = W_ij, dy_i/dW_ij = x_j and dy_i/db_i = 1. W and b are
    used for every row, so their derivatives are sums over all rows.
    """
    d_x = d_y @ W  # (..., M) @ (M, N) -> (..., N)
    rows_y, rows_x = d_y.reshape(-1, len(W)), x.reshape(-1, W.shape[1])  # (rows, M), (rows, N)
    d_W = rows_y.T @ rows_x  # (M, rows) @ (rows, N) -> (M, N)
    d_b = rows_y.sum(axis=0)  # (M,)
    return d_x, d_W, d_b


def embed_back(d_x: Array, ids: Ids, V: int) -> Array:
    """d_E (V, D) from d_x (..., D), where x = E[ids] with ids (...): row ids_i of E became x_i.

    A character that was read twice gets the sum of both.
    """
    d_E = np.zeros((V, d_x.shape[-1]))  # (V, D)
    np.add.at(d_E, ids, d_x)
    return d_E


def start(rng: np.random.Generator, *shape: int) -> Array:
    """A random matrix (M, N) to start from.

    With the standard deviation 1 / sqrt(N), y = W x is about as large as x.
    """
    W: Array = rng.normal(size=shape) / np.sqrt(shape[-1])
    return W
