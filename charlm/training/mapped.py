"""The weights in a checkpoint as arrays of numpy that lie on the disk until they are read.

Nothing is copied, and processes that write with one checkpoint share the memory. Needs no torch.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.training.checkpoint import reading

_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def map_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """The weights by the names that a model has for them; not to be written to.

    Raises:
        CheckpointError: the file is damaged, or has weights of a type that charlm does not make.
    """
    with reading(path):
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        weights = {}
        for name, entry in header.items():
            if name.startswith("model."):
                begin, end = entry["data_offsets"]
                raw = memoryview(content)[start + begin : start + end]
                array = np.frombuffer(raw, _TYPES[entry["dtype"]]).reshape(entry["shape"])
                weights[name.removeprefix("model.")] = array.astype(np.float32, copy=False)
        return weights
