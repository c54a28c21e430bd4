"""The loss: nats."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from charlm.data.batches import IGNORED


def summed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """The negative log-likelihood of all targets together, in nats, a float32 scalar.

    Divided by the number of them it is nats per character, and ln V for uniform logits.

    Args:
        logits: (B, T, V), of any floating type.
        targets: (B, T) ids, or `IGNORED` where nothing is to be predicted.
    """
    # (B, T, V) -> (B*T, V); the softmax is always taken in float32
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORED
    )
