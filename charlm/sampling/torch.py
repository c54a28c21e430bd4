"""The engine `torch`: the networks of charlm.sampling.numpy on PyTorch tensors, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.errors import DeviceError
from charlm.models import CharModel
from charlm.sampling.engine import EngineOfNetwork
from charlm.sampling.numpy import Arrays, Network, build_network


class TorchEngine(EngineOfNetwork[Network]):
    """An engine with the weights of a PyTorch model, on the device of the model.

    It reads the parameters only. It ignores the mode of the model (train or eval) and has no
    dropout. Characters are drawn on the CPU, so each step copies ids to the device and logits back.

    Args:
        model: make a new engine after its parameters change.
        bf16: round numbers to bfloat16 before they are multiplied. This is faster for many texts on
            a GPU and changes probabilities by up to about 1 %.

    Raises:
        DeviceError: `bf16`, but the device does not support it.
    """

    def __init__(self, model: CharModel, bf16: bool = False) -> None:
        self._bf16 = bf16
        weights = {name: p.detach() for name, p in model.named_parameters()}
        self._device = next(iter(weights.values())).device
        if bf16 and not _supports_bf16(self._device):
            raise DeviceError(
                f"precision=bf16: PyTorch does not support it for sampling on this "
                f"{self._device.type}; leave it out"
            )
        arrays = Arrays(torch, lambda array: torch.from_numpy(array).to(self._device))
        super().__init__(build_network(model.config, model.vocab_size, weights, arrays))

    def read(self, ids: Ids) -> NDArray[np.floating]:
        with _matmul_precision("medium") if self._bf16 else nullcontext():
            logits = self._network.read(torch.from_numpy(ids.astype(np.int64)).to(self._device))
            array: NDArray[np.floating] = logits.cpu().numpy()
        return array


def _supports_bf16(device: torch.device) -> bool:
    """Whether the setting changes a product; PyTorch ignores it on a device that lacks bfloat16."""
    matrix = torch.randn(128, 128, generator=torch.Generator().manual_seed(0)).to(device)
    with _matmul_precision("medium"):
        product = matrix @ matrix
    with _matmul_precision("highest"):
        return not torch.equal(product, matrix @ matrix)


@contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    """Set the precision of float32 matrix products, and restore it at the end."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
