"""Tests a way to compute on one batch: are its results correct, and how long does a step take?"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charlm.config import TrainConfig
from charlm.evaluation.loss import summed_nll
from charlm.kernels.muon import MuonKernel, MuonUpdate
from charlm.models import CharModel
from charlm.models.base import Forward
from charlm.training.compute import DTYPES, Compute, Precision, forward_of
from charlm.training.muon import make_muon, orthogonal
from charlm.training.step import Stepper

# The largest relative differences (loss, gradient) that rounding in a precision can explain.
# On a GPU, fp32 is TF32.
TOLERANCES = {"fp32": (2e-3, 0.05), "fp16": (5e-3, 0.1), "bf16": (2e-2, 0.25)}
LOSS_SCALE = 1024.0  # for fp16, in which small gradients would become 0
MAX_FLOPS = 1e10  # of a trial's batch: about 0.1 s on two cores
SHARES = (1 / 64, 1 / 8, 1)  # of that batch, timed one after another
MARGIN = 1.3  # bfloat16 must be this many times as fast, so that noise does not decide
GIVE_UP = 4.0  # a precision this many times slower than the other is not timed again
MIN_SECONDS = 0.02  # for which a short matrix product is repeated


@dataclass(frozen=True)
class LossAndGradient:
    """The loss of one batch (nats per character) and its gradient with respect to all N parameters,
    flattened (N,), float32 on the CPU."""

    loss: float
    gradient: Tensor


def loss_and_gradient(
    model: CharModel, compute: Compute, x: Tensor, y: Tensor, forward: Forward | None = None
) -> LossAndGradient:
    """Return the loss and gradient of one batch.

    The model, its `grad` fields and the random generators stay as they are.

    Args:
        model: on `compute`'s device.
        x, y: inputs and targets (B, T), on any device.
        forward: the forward pass to use instead of the one that `compute` has.

    Raises:
        RuntimeError: PyTorch cannot compute this model on this device in this precision.
    """
    x, y = x.to(compute.device), y.to(compute.device)
    with fork_rng(compute.device):
        with compute.autocast():
            logits, _ = (forward or forward_of(model, compute, keep_state=False))(x, None)
        loss = summed_nll(logits, y) / y.numel()
        scale = LOSS_SCALE if compute.precision == "fp16" else 1.0
        gradients = torch.autograd.grad(scale * loss, list(model.parameters()))
    flat = torch.cat([gradient.float().cpu().flatten() for gradient in gradients])  # (N,)
    return LossAndGradient(float(loss.detach()), flat / scale)


def fork_rng(device: torch.device) -> AbstractContextManager[None]:
    """Restore the random generators of the CPU and of `device` at the end."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def compare(
    result: LossAndGradient, reference: LossAndGradient, precision: str
) -> tuple[bool, str]:
    """Compare two results for one batch.

    Args:
        reference: computed in float32 on the CPU.
        precision: of `result`; rounding in it explains differences up to TOLERANCES.

    Returns:
        Whether they agree, and a text with both losses and the distance of the gradients.
    """
    loss_error = abs(result.loss - reference.loss) / reference.loss
    error = float((result.gradient - reference.gradient).norm() / reference.gradient.norm())
    max_loss_error, max_error = TOLERANCES[precision]
    text = (
        f"loss of random text {result.loss:.4f}, {reference.loss:.4f} in float32 on the CPU; "
        f"gradients {error:.1%} apart"
    )
    return loss_error <= max_loss_error and error <= max_error, text  # False for NaN


def unsupported_reason(model: CharModel, train: TrainConfig, compute: Compute) -> str | None:
    """Return why PyTorch cannot compute this model in this precision; None if it can."""
    try:
        loss_and_gradient(model, compute, *random_batch(train, model, share=0))
    except RuntimeError as error:
        return first_line(error)
    return None


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def without_dropout(model: CharModel) -> CharModel:
    """Return a copy of the model without dropout, so that two passes can be compared."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name in ("p", "dropout", "weight_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def random_batch(train: TrainConfig, model: CharModel, share: float = 1) -> tuple[Tensor, Tensor]:
    """Return random inputs and targets (B, T) for a trial, the same ones every time.

    They are a piece of a training batch, made smaller where its forward and backward pass would
    take more than MAX_FLOPS. If the batch has so many, there is a sequence for each thread, because
    charlm's kernels divide the sequences among the threads.

    Args:
        share: the share of that size to return, 0 to 1; 0 is a few characters.
    """
    B, T = train.batch_size // train.grad_accum, train.seq_len
    chars = max(16.0, min(B * T, MAX_FLOPS / (6 * model.count_parameters()))) * share
    T = max(8, min(T, int(chars) // min(B, torch.get_num_threads())))
    B = max(1, min(B, int(chars) // T))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (2, B, min(T, train.seq_len)), generator=generator)
    return ids[0], ids[1]


# --- speed -----------------------------------------------------------------------------------


def step_seconds(
    model: CharModel, train: TrainConfig, compute: Compute, x: Tensor, y: Tensor, repeats: int = 2
) -> float:
    """Return the seconds of one optimizer step with learning rate 0 on x, y (B, T) as one piece.

    The shortest of `repeats` steps counts, after one more that warms up. The model and the random
    generators stay as they are. Give the model with its dropout, which takes time, too.
    """
    model = copy.deepcopy(model).to(compute.device)
    whole = train.model_copy(update={"grad_accum": 1})  # x may have fewer rows than pieces
    stepper = Stepper(model, whole, compute, carries_state=False)
    x, y = x.to(compute.device), y.to(compute.device)

    def step() -> None:
        stepper.step(x, y, 0.0)
        float(next(model.parameters()).detach().sum())  # waits for the GPU

    with fork_rng(compute.device):
        return _shortest(step, repeats)


def _shortest(step: Callable[[], object], repeats: int) -> float:
    """The seconds of the shortest of `repeats` calls, after one more that warms up."""
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def faster(
    seconds: Callable[[Precision, float], float],
    recorded: Precision | None,
    shares: Sequence[float] = SHARES,
) -> Precision:
    """Return the faster of float32 and bfloat16.

    A new run takes bfloat16 if it is MARGIN times as fast. A resumed run keeps the recorded
    precision unless the other one is GIVE_UP times as fast.

    Both are timed on growing shares of the work. This ends when the other one takes GIVE_UP times
    as long as the preferred one, or the preferred one 8 * GIVE_UP times as long as the other. The
    second limit is higher because on a busy machine a short time may be 20 times too long.

    Args:
        seconds: from a precision and a share of the work, 0 to 1, to the time that it takes.
        recorded: the precision of the run before; None or fp16 if it does not matter here.
        shares: ascending; the last is usually 1.
    """
    preferred: Precision = "bf16" if recorded == "bf16" else "fp32"
    other: Precision = "fp32" if preferred == "bf16" else "bf16"
    margin = GIVE_UP if recorded == preferred else MARGIN
    ours = theirs = 0.0
    for share in shares:
        ours, theirs = seconds(preferred, share), seconds(other, share)
        if theirs > GIVE_UP * ours or ours > 8 * GIVE_UP * theirs:
            break
    return preferred if ours <= margin * theirs else other


# --- Muon ------------------------------------------------------------------------------------


@functools.cache
def muon_seconds(shape: tuple[int, int], device: str, precision: Precision, share: float) -> float:
    """Return the seconds of Muon's orthogonal factor for one matrix.

    Measured once per process.

    Args:
        shape: (m, n) of the matrix.
        share: of each side that is used, 0 to 1.

    Returns:
        The shortest time; infinity if the device cannot compute it.
    """
    rows, columns = (max(1, int(side * share)) for side in shape)
    matrix = torch.randn(1, rows, columns, generator=torch.Generator().manual_seed(0)).to(device)
    seconds: list[float] = []
    try:
        while len(seconds) < 2 or (sum(seconds) < MIN_SECONDS and len(seconds) < 20):
            started = time.perf_counter()
            float(orthogonal(matrix, DTYPES[precision])[0, 0, 0])  # waits for the GPU
            seconds.append(time.perf_counter() - started)
    except RuntimeError:
        return float("inf")
    return min(seconds)


def largest_matrix(model: CharModel) -> tuple[int, int]:
    """Return the shape of the largest hidden matrix."""
    rows, columns = max(model.hidden_matrices(), key=lambda it: it.numel()).shape
    return rows, columns


def muon_kernel_error(kernel: MuonKernel, shape: tuple[int, int]) -> float:
    """Return the relative error of a kernel's factor of a random (m, n) matrix, against float32."""
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(shape)
    kernel.steps([MuonUpdate(weights, gradient, torch.zeros(shape), 1.0)], 0.0, 1.0)
    reference = orthogonal(gradient[None], torch.float32)[0]
    return float((-weights - reference).norm() / reference.norm())


def muon_step_seconds(
    model: CharModel, kernel: MuonKernel | None, precision: Precision, repeats: int = 3
) -> float:
    """Return the seconds of a step of Muon for all hidden matrices, the shortest of `repeats`.

    Args:
        kernel: None for PyTorch, whose products have this precision.
    """
    matrices = [nn.Parameter(torch.zeros_like(it)) for it in model.hidden_matrices()]
    for matrix in matrices:
        matrix.grad = torch.ones_like(matrix)
    groups = [{"params": matrices, "weight_decay": 0.0}]
    muon = make_muon(groups, 0.0, 0.0, kernel, DTYPES[precision])
    return _shortest(muon.step, repeats)
