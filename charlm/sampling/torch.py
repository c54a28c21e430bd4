"""The networks on torch's arrays: on a GPU, in bfloat16, or for texts of a model in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.data.vocab import Ids
from charlm.errors import DeviceError
from charlm.models import CharModel
from charlm.sampling.numpy import Arrays, build_network


class TorchEngine:
    """The weights of a model where they are, and nothing else of it: no mode, no dropout.

    The next characters are drawn on the host, so a character costs one copy there and one back.

    With `bf16`, numbers are rounded to bfloat16 before they are multiplied: faster for many texts
    on a GPU, and probabilities off by up to a per cent.

    Raises:
        DeviceError: `bf16`, and PyTorch does not multiply so on this device.
    """

    def __init__(self, model: CharModel, bf16: bool = False) -> None:
        self._bf16 = bf16
        weights = {name: p.detach() for name, p in model.named_parameters()}
        self._device = next(iter(weights.values())).device
        if bf16 and not _has_products_in_bf16(self._device):
            raise DeviceError(
                f"precision=bf16: PyTorch multiplies float32 matrices in float32 only on this "
                f"{self._device.type}; leave it out"
            )
        arrays = Arrays(torch, lambda array: torch.from_numpy(array).to(self._device))
        self._network = build_network(model.config, model.vocab_size, weights, arrays)
        self.vocab_size, self.context = model.vocab_size, model.context

    def fresh(self) -> TorchEngine:
        """Another of the same weights, at the beginning of a text."""
        other = copy(self)
        other._network = self._network.fresh()
        return other

    def restart(self) -> None:
        """Forget what was read."""
        self._network.restart()

    def select(self, texts: list[int]) -> None:
        """Go on with these of the texts read so far, some perhaps many times."""
        self._network.select(texts)

    def read(self, ids: Ids) -> NDArray[np.floating]:
        """Read T characters of each text, ids (B, T); the logits (B, V) of the next."""
        with _matmul_precision("medium") if self._bf16 else nullcontext():
            logits = self._network.read(torch.from_numpy(ids.astype(np.int64)).to(self._device))
            array: NDArray[np.floating] = logits.cpu().numpy()
        return array


def _has_products_in_bf16(device: torch.device) -> bool:
    """Whether a product differs from that in float32: PyTorch ignores the wish where it cannot."""
    matrix = torch.randn(128, 128, generator=torch.Generator().manual_seed(0)).to(device)
    with _matmul_precision("medium"):
        short = matrix @ matrix
    with _matmul_precision("highest"):
        return not torch.equal(short, matrix @ matrix)


@contextmanager
def _matmul_precision(name: str) -> Iterator[None]:
    """Inside, float32 matrices are multiplied in this precision; afterwards as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
