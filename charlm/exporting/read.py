"""Reading the model that is exported, with its weights as the other program will have them."""

from __future__ import annotations

import torch

from charlm.checkpoint.read import Checkpoint
from charlm.checkpoint.weights import read_model
from charlm.errors import BrokenModelError
from charlm.models import CharModel

_LARGEST = torch.finfo(torch.float16).max


@torch.no_grad()
def read_exported(checkpoint: Checkpoint, weights: str) -> CharModel:
    """The model of a checkpoint on the CPU, for reading texts, with all weights in float32.

    Args:
        weights: the format of the weights, fp32 or fp16. With fp16, matrices are rounded to
            numbers that a float16 can have, and no weight is larger than the largest of them.

    Raises:
        BrokenModelError: a weight is not finite.
    """
    model = read_model(checkpoint).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.isfinite().all():
            raise BrokenModelError
        if weights == "fp16":
            parameter.clamp_(-_LARGEST, _LARGEST)
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
    return model
