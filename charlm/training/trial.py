"""Trying a way to compute before it is used: does it give the right numbers, and is it fast?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.config import TrainConfig
from charlm.evaluation.loss import summed_nll
from charlm.models import CharModel
from charlm.training.compute import Compute, Forward, forward_of
from charlm.training.step import Stepper

# the largest relative differences, of the loss and of the gradient, that a precision explains;
# on a GPU, fp32 is TF32
TOLERANCES = {"fp32": (2e-3, 0.05), "fp16": (5e-3, 0.1), "bf16": (2e-2, 0.25)}
LOSS_SCALE = 1024.0  # of fp16, whose small gradients would be zero
FLOPS = 1e10  # of a trial's batch, at most: about 0.1 s on two cores
SHARES = (1 / 64, 1 / 8, 1)  # of that batch, tried one after the other
HOPELESS = 4.0  # times slower than the fastest on one share: not tried on the next


@dataclass(frozen=True)
class Look:
    """What one batch gives: the loss (nats per character) and the gradient of all parameters in
    a row (P,), float32 on the CPU."""

    loss: float
    gradient: Tensor


def look(
    model: CharModel, compute: Compute, x: Tensor, y: Tensor, forward: Forward | None = None
) -> Look:
    """Loss and gradient of a model, on `compute`'s device, for inputs x and targets y, both (B, T).

    Nothing is left in the model, nor taken from the generators.

    Args:
        forward: another forward pass of the model than `compute` has.

    Raises:
        RuntimeError: PyTorch cannot compute this model on this device in this precision.
    """
    x, y = x.to(compute.device), y.to(compute.device)
    devices = [compute.device] if compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        with compute.autocast():
            logits, _ = (forward or forward_of(model, compute, keep_state=False))(x, None)
        loss = summed_nll(logits, y) / y.numel()
        scale = LOSS_SCALE if compute.precision == "fp16" else 1.0
        gradients = torch.autograd.grad(scale * loss, list(model.parameters()))
    row = torch.cat([gradient.float().cpu().flatten() for gradient in gradients])
    return Look(float(loss.detach()), row / scale)


def compare(got: Look, exact: Look, precision: str) -> tuple[bool, str]:
    """Whether two looks at one batch agree within what a precision explains, and how they differ.

    Args:
        exact: in float32 on the CPU.
    """
    loss_off = abs(got.loss - exact.loss) / exact.loss
    off = float((got.gradient - exact.gradient).norm() / exact.gradient.norm())
    most_loss, most = TOLERANCES[precision]
    text = f"loss {got.loss:.4f}, {exact.loss:.4f} in float32 on the CPU; gradients {off:.1%} apart"
    return loss_off <= most_loss and off <= most, text  # false for NaN


def without_dropout(model: CharModel) -> CharModel:
    """A copy of a model that leaves out nothing in training, so that two passes are comparable."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name in ("p", "dropout", "weight_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def random_batch(train: TrainConfig, model: CharModel, share: float = 1) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) like those of a step, or a share of it; at most FLOPS of work."""
    B, T = train.batch_size // train.grad_accum, train.seq_len
    chars = max(16.0, min(B * T, FLOPS / (6 * model.count_parameters()))) * share
    T = max(8, min(T, int(chars)))
    B = max(1, min(B, int(chars) // T))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (2, B, min(T, train.seq_len)), generator=generator)
    return ids[0], ids[1]


def step_seconds(
    model: CharModel, train: TrainConfig, compute: Compute, x: Tensor, y: Tensor, repeats: int = 2
) -> float:
    """Seconds of one optimizer step at rate 0 on x, y (B, T); the best of some, after a first."""
    stepper = Stepper(model, train, compute, carries_state=False)
    x, y = x.to(compute.device), y.to(compute.device)
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        stepper.step(x, y, 0.0)
        float(next(model.parameters()).detach().sum())  # waits for a GPU
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def fastest(
    ways: Mapping[str, Callable[[float], float]],
    preferred: str,
    margin: float,
    shares: Sequence[float] = SHARES,
) -> tuple[str, dict[str, float]]:
    """The fastest of several ways to do the same work, and the seconds of those tried to the end.

    They are timed on growing shares of the work, and what is hopelessly slow is given up early. The
    preferred one gets more patience, because on a busy machine a short time may be 20 times too
    long.

    Args:
        ways: for each, a function from a share of the work, 0 to 1, to the seconds that it took.
        preferred: is taken unless another is `margin` times as fast on all of the work.
    """
    left, seconds = dict(ways), dict[str, float]()
    for share in shares:
        seconds = {name: way(share) for name, way in left.items()}
        best = min(seconds.values())
        limits = {name: HOPELESS * (8 if name == preferred else 1) for name in left}
        left = {name: way for name, way in left.items() if seconds[name] <= limits[name] * best}
        if len(left) == 1:
            break
    winner = min(seconds, key=seconds.__getitem__)
    if seconds[preferred] <= margin * seconds[winner]:
        winner = preferred
    return winner, seconds
