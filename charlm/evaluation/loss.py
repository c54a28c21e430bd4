"""The loss, in nats."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from charlm.data.batches import IGNORED


def summed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of the negative log-likelihoods of all targets, in nats.

    Divided by the number of targets, it is the loss in nats per character: ln V for uniform logits.

    Args:
        logits: (B, T, V), of any floating type.
        targets: (B, T) ids, or `IGNORED` at positions that do not count.

    Returns:
        A float32 scalar.
    """
    # (B, T, V) to (B*T, V); the softmax is in float32 for every type of logits
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORED
    )
