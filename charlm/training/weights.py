"""Weights out of a checkpoint, into a model to use or into one to train further."""

from __future__ import annotations

from pathlib import Path

import torch

from charlm.models import CharModel, build_model
from charlm.training.checkpoint import Meta, read_tensors, reading
from charlm.training.compute import choose_device, set_threads


def load_model(path: Path, meta: Meta, device: str) -> CharModel:
    """The model of a checkpoint, on a device, ready for evaluation and sampling.

    Raises:
        DeviceError: the device is not there.
    """
    where = choose_device(device)
    set_threads(None)
    return read_model(path, meta).to(where).eval()


@torch.no_grad()
def read_model(path: Path, meta: Meta) -> CharModel:
    """The model of a checkpoint, on the CPU, with all its weights and nothing else."""
    model = build_model(meta.config.model, len(meta.vocab), seed=0)
    weights, parameters = read_tensors(path, "model."), dict(model.named_parameters())
    with reading(path):
        if weights.keys() != parameters.keys():
            raise ValueError(f"weights {sorted(weights.keys() ^ parameters.keys())}")
        for name, parameter in parameters.items():
            value = weights[name]
            if value.shape != parameter.shape or not value.is_floating_point():
                raise ValueError(f"{name} is {tuple(value.shape)} of {value.dtype}")
            parameter.copy_(value)
    return model


@torch.no_grad()
def copy_weights(old: CharModel, new: CharModel) -> None:
    """Copy weights into a model that may know more characters; what it knows beyond them stays."""
    for (_, value), (_, parameter) in zip(
        old.named_parameters(), new.named_parameters(), strict=True
    ):
        parameter[tuple(slice(size) for size in value.shape)] = value
