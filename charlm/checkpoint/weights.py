"""Loading the weights of a checkpoint into a model, to use it or to train it further."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor

from charlm.checkpoint.read import Checkpoint
from charlm.devices import CPU, choose_device, set_threads
from charlm.errors import DeviceError
from charlm.models import CharModel, build_model

LOGITS_TOLERANCE = 1e-2  # relative; a GPU computes float32 products as TF32
BATCH = (16, 64)  # (B, T) of the batch that a GPU is tried on


def load_model(
    checkpoint: Checkpoint, device: str, notify: Callable[[str], None] = lambda _: None
) -> CharModel:
    """Load the model of a checkpoint on a device, ready for evaluation and sampling.

    A GPU is used only if one batch gives the same logits there as on the CPU. With `auto`, it must
    also be faster than the CPU for that batch.

    Args:
        notify: called with one line if `auto` finds a GPU and does not use it.

    Raises:
        DeviceError: the device is missing, or gives wrong logits.
    """
    chosen = choose_device(device)
    set_threads(None)
    model = read_model(checkpoint).eval()
    if chosen == CPU:
        return model
    on_gpu = copy.deepcopy(model).to(chosen)
    problem = _difference(model, on_gpu)
    if problem and device != "auto":
        raise DeviceError(f"device={device}: its results are wrong: {problem}; use device=cpu")
    if not problem and device == "auto":
        gpu_s, cpu_s = (min(_run_batch(it)[1] for _ in range(2)) for it in (on_gpu, model))
        if gpu_s > cpu_s:
            problem = f"a batch takes {1e3 * gpu_s:.3g} ms, and {1e3 * cpu_s:.3g} ms on the CPU"
    if problem:
        notify(f"{chosen} is not used: {problem}")
        return model
    return on_gpu


def _difference(model: CharModel, on_gpu: CharModel) -> str | None:
    """How much the logits on the GPU differ from those on the CPU; None within the tolerance."""
    exact, got = _run_batch(model)[0], _run_batch(on_gpu)[0]
    error = float((got - exact).norm() / exact.norm())
    return None if error <= LOGITS_TOLERANCE else f"its logits differ by {error:.1%} from the CPU's"


@torch.inference_mode()
def _run_batch(model: CharModel) -> tuple[Tensor, float]:
    """Run a batch; return its logits (B, T, V), float32 on the CPU, and the seconds it took."""
    T = min(BATCH[1], model.context or BATCH[1])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (BATCH[0], T), generator=generator)
    started = time.perf_counter()
    logits = model(ids.to(model.device), None)[0].float().cpu()
    return logits, time.perf_counter() - started


@torch.no_grad()
def read_model(checkpoint: Checkpoint) -> CharModel:
    """Load the model of a checkpoint on the CPU."""
    meta = checkpoint.meta
    model = build_model(meta.config.model, len(meta.vocab), seed=0)
    weights = checkpoint.tensors("model.")
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
    return model


@torch.no_grad()
def copy_weights(old: CharModel, new: CharModel) -> None:
    """Copy weights into a model that may have a larger vocabulary.

    The rows of its additional characters keep their values.
    """
    for value, parameter in zip(old.parameters(), new.parameters(), strict=True):
        parameter[tuple(slice(size) for size in value.shape)] = value
