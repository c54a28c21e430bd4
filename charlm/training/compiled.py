"""The forward pass by torch.compile, believed after one batch."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from charlm.config import TrainConfig
from charlm.models import CharModel
from charlm.training.compute import Compute, Forward
from charlm.training.trial import compare, look

DROPOUT_TOLERANCE = 0.1  # of the loss, relative: two passes leave out different units


def compiled_forward(
    model: CharModel, train: TrainConfig, compute: Compute, x: Tensor, y: Tensor, carries: bool
) -> tuple[Forward | None, str | None]:
    """The model's forward pass compiled, if `train.compile` says so and it works on a batch.

    Args:
        model: on `compute`'s device.
        x, y: inputs and targets (B, T) of one piece of a batch.
        carries: whether training carries a state, so that it must work with one, too.

    Returns:
        the compiled pass or None; and, where it failed or was wrong, a line that says so.
    """
    pays = compute.device.type == "cuda" and model.compile_pays_on_cuda
    if train.compile == "off" or (train.compile == "auto" and not pays):
        return None, None
    try:
        forward: Forward = functools.partial(torch.compile(model), keep_state=carries)
        if carries:
            _try_with_state(forward, compute, x)
        got = look(model, compute, x, y, forward)
    except Exception as error:  # compilers fail in many ways; if it is the model, eager fails too
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return None, f"torch.compile failed, going on without it: {reason[0]:.200}"
    if train.verify:
        exact = look(model, compute, x, y)
        agrees, text = compare(got, exact, compute.precision)
        if _has_dropout(model):
            agrees = abs(got.loss - exact.loss) <= DROPOUT_TOLERANCE * exact.loss
        if not agrees:
            return None, f"torch.compile gives wrong numbers, going on without it: {text}"
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
