"""The weights of a checkpoint as NumPy arrays that are memory-mapped from the file.

Nothing is copied, and processes that sample from the same checkpoint share the memory. Needs no
torch.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.checkpoint.read import TensorEntry, parse_header, reading, tensors_in
from charlm.errors import DamageError

_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def map_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Map the weights of a checkpoint.

    Returns:
        Read-only arrays by the names that the model's parameters have.

    Raises:
        CheckpointError: the file is damaged, or has weights of a type that charlm does not write.
    """
    with reading(path):
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(content[:8], "little")
        header = parse_header(path, content[8:start])
        return {
            tensor.name.removeprefix("model."): _array(tensor, memoryview(content)[start:])
            for tensor in tensors_in(header)
            if tensor.name.startswith("model.")
        }


def _array(tensor: TensorEntry, content: memoryview) -> NDArray[np.float32]:
    """A tensor as a float32 array; `content` is the bytes after the header."""
    dtype = np.dtype(_TYPES.get(tensor.dtype, "V0"))
    size = math.prod(tensor.shape) * dtype.itemsize
    if dtype.itemsize == 0 or tensor.end - tensor.begin != size or tensor.end > len(content):
        raise DamageError(f"{tensor.name} is {tensor.shape} of {tensor.dtype:.20}")
    array = np.frombuffer(content[tensor.begin : tensor.end], dtype).reshape(tensor.shape)
    return array.astype(np.float32, copy=False)
