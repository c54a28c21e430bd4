"""Weights out of a checkpoint, into a model to use or into one to train further."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import read_tensors, reading
from charlm.devices import CPU, choose_device, set_threads
from charlm.errors import DamageError, DeviceError
from charlm.models import CharModel, build_model

LOGITS_TOLERANCE = 1e-2  # relative; a GPU multiplies float32 matrices as TF32
BATCH = (16, 64)  # texts and characters of the batch that a GPU is tried on


def load_model(
    path: Path, meta: Meta, device: str, notify: Callable[[str], None] = lambda _: None
) -> CharModel:
    """The model of a checkpoint, on a device, ready for evaluation and sampling.

    A GPU is believed only after one batch gave there what it gives on the CPU; and `auto` takes it
    only where that batch is faster.

    Args:
        notify: called with a line where `auto` does not take the GPU that is there.

    Raises:
        DeviceError: the device is missing, or gives wrong numbers.
    """
    where = choose_device(device)
    set_threads(None)
    model = read_model(path, meta).eval()
    if where == CPU:
        return model
    there = copy.deepcopy(model).to(where)
    problem = _difference(model, there)
    if problem and device != "auto":
        raise DeviceError(f"device={device}: its results are wrong: {problem}; use device=cpu")
    if not problem and device == "auto":
        seconds, on_cpu = (min(_read(it)[1] for _ in range(2)) for it in (there, model))
        if seconds > on_cpu:
            problem = f"a batch takes {1e3 * seconds:.3g} ms, on the CPU {1e3 * on_cpu:.3g} ms"
    if problem:
        notify(f"{where} is not used: {problem}")
        return model
    return there


def _difference(model: CharModel, there: CharModel) -> str | None:
    """How far the logits of two copies of a model are apart, if that is too far."""
    exact, got = _read(model)[0], _read(there)[0]
    off = float((got - exact).norm() / exact.norm())
    return None if off <= LOGITS_TOLERANCE else f"logits {off:.1%} off those of the CPU"


@torch.inference_mode()
def _read(model: CharModel) -> tuple[Tensor, float]:
    """The logits (B, T, V) of a batch, float32 on the CPU, and the seconds that it took."""
    T = min(BATCH[1], model.context or BATCH[1])
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (BATCH[0], T), generator=generator)
    started = time.perf_counter()
    logits = model(ids.to(next(model.parameters()).device), None)[0].float().cpu()
    return logits, time.perf_counter() - started


@torch.no_grad()
def read_model(path: Path, meta: Meta) -> CharModel:
    """The model of a checkpoint, on the CPU, with all its weights and nothing else."""
    model = build_model(meta.config.model, len(meta.vocab), seed=0)
    weights, parameters = read_tensors(path, "model."), dict(model.named_parameters())
    with reading(path):
        if weights.keys() != parameters.keys():
            raise DamageError(f"weights {sorted(weights.keys() ^ parameters.keys())}")
        for name, parameter in parameters.items():
            value = weights[name]
            if value.shape != parameter.shape or not value.is_floating_point():
                raise DamageError(f"{name} is {tuple(value.shape)} of {value.dtype}")
            parameter.copy_(value)
    return model


@torch.no_grad()
def copy_weights(old: CharModel, new: CharModel) -> None:
    """Copy weights into a model that may know more characters; what it knows beyond them stays."""
    for (_, value), (_, parameter) in zip(
        old.named_parameters(), new.named_parameters(), strict=True
    ):
        parameter[tuple(slice(size) for size in value.shape)] = value
