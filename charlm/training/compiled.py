"""The forward pass by torch.compile, used only after one batch agreed with the plain one."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from charlm.config import TrainConfig
from charlm.models import CharModel
from charlm.models.base import Forward
from charlm.models.gpt import GPT
from charlm.training.compute import Compute
from charlm.training.trial import compare, first_line, loss_and_gradient

DROPOUT_TOLERANCE = 0.1  # of the loss, relative: two passes drop different units


def compiled_forward(
    model: CharModel, train: TrainConfig, compute: Compute, x: Tensor, y: Tensor, carries: bool
) -> tuple[Forward | None, str | None]:
    """Compile the model's forward pass if `train.compile` asks for it.

    Args:
        model: on `compute`'s device.
        x, y: inputs and targets (B, T) of one piece of a batch, to try the compiled pass on.
        carries: whether training carries a state, so that the pass must also work with one.

    Returns:
        The compiled pass, or None to use the plain one; and, if it failed or gave wrong numbers, a
        line that says so.
    """
    pays = compute.device.type == "cuda" and isinstance(model, GPT)
    if train.compile == "off" or (train.compile == "auto" and not pays):
        return None, None
    try:
        forward: Forward = functools.partial(torch.compile(model), keep_state=carries)
        if carries:
            _try_with_state(forward, compute, x)
        result = loss_and_gradient(model, compute, x, y, forward)
    except Exception as error:  # compilers fail in many ways; if the model does, eager fails too
        return None, f"torch.compile failed, training goes on without it: {first_line(error)}"
    if train.verify:
        reference = loss_and_gradient(model, compute, x, y)
        agrees, text = compare(result, reference, compute.precision)
        if _has_dropout(model):
            agrees = abs(result.loss - reference.loss) <= DROPOUT_TOLERANCE * reference.loss
        if not agrees:
            return None, f"torch.compile gives wrong numbers, training goes on without it: {text}"
    return forward, None


def _try_with_state(forward: Forward, compute: Compute, x: Tensor) -> None:
    """Read x (B, T) twice, the second time from the state after the first."""
    devices = [compute.device] if compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), compute.autocast():
        _, state = forward(x, None)
        forward(x, tuple(tensor.detach() for tensor in state))


def _has_dropout(model: CharModel) -> bool:
    settings = model.config.model_dump()
    return any(value for name, value in settings.items() if name.endswith("dropout"))
