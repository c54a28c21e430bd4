"""How a gradient changes the weights: every step makes the loss a little smaller.

Shapes: w, g and m have the shape of a weight, whatever it is. All operations are elementwise.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from charlm.scratch import Array, Weights


def clip(grads: Weights, limit: float) -> Weights:
    """The gradients, scaled down if all together are longer than `limit` (Pascanu et al. 2013).

    A gradient through many steps of time can be very large, and one such step would ruin a model.
    """
    length = np.sqrt(sum((g**2).sum() for g in grads.values()))
    return {name: g * min(1, limit / (length + 1e-12)) for name, g in grads.items()}


class SGD:
    """Gradient descent: w <- w - lr m, with momentum, a memory of earlier gradients.

    Args:
        momentum: how much of m stays at a step; 0 for plain gradient descent.
    """

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = momentum
        self.m: dict[str, Array | float] = defaultdict(float)  # 0 before the first step

    def update(self, weights: Weights, grads: Weights, lr: float) -> None:
        """Change the weights in place. lr is the learning rate."""
        for name, g in grads.items():
            self.m[name] = self.momentum * self.m[name] + g
            weights[name] -= lr * self.m[name]


class Adagrad:
    """Steps that are small for weights with large gradients (Duchi et al. 2011).

    m is the sum of all g^2, so steps become smaller and smaller.
    """

    def __init__(self) -> None:
        self.m: dict[str, Array | float] = defaultdict(float)

    def update(self, weights: Weights, grads: Weights, lr: float) -> None:
        """Change the weights in place. lr is the learning rate."""
        for name, g in grads.items():
            self.m[name] = self.m[name] + g**2
            weights[name] -= lr * g / (np.sqrt(self.m[name]) + 1e-10)  # never divides by 0


class RMSProp:
    """Adagrad that forgets (Tieleman & Hinton 2012): m is a mean of the latest g^2.

    Args:
        decay: how much of m stays at a step; the mean is of about 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self.m: dict[str, Array | float] = defaultdict(float)

    def update(self, weights: Weights, grads: Weights, lr: float) -> None:
        """Change the weights in place. lr is the learning rate."""
        for name, g in grads.items():
            self.m[name] = self.decay * self.m[name] + (1 - self.decay) * g**2
            weights[name] -= lr * g / (np.sqrt(self.m[name]) + 1e-8)


class Adam:
    """RMSProp with momentum (Kingma & Ba 2015).

    Args:
        beta1: how much of the mean of g stays at a step.
        beta2: how much of the mean of g^2 stays at a step.
    """

    def __init__(self, beta1: float = 0.9, beta2: float = 0.99) -> None:
        self.beta1, self.beta2, self.steps = beta1, beta2, 0
        self.m: dict[str, Array | float] = defaultdict(float)  # mean of g
        self.v: dict[str, Array | float] = defaultdict(float)  # mean of g^2

    def update(self, weights: Weights, grads: Weights, lr: float) -> None:
        """Change the weights in place. lr is the learning rate."""
        self.steps += 1
        for name, g in grads.items():
            self.m[name] = self.beta1 * self.m[name] + (1 - self.beta1) * g
            self.v[name] = self.beta2 * self.v[name] + (1 - self.beta2) * g**2
            m = self.m[name] / (1 - self.beta1**self.steps)  # they began at 0, which this corrects
            v = self.v[name] / (1 - self.beta2**self.steps)
            weights[name] -= lr * m / (np.sqrt(v) + 1e-8)
