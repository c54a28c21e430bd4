"""charlm: train character-level language models, sample from them, and look inside.

from charlm import load

model = load("checkpoints/shakespeare-lstm")
print(model.sample("ROMEO:", length=200, temperature=0.8))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from charlm.version import __version__

if TYPE_CHECKING:
    from charlm.api import Model

__all__ = ["__version__", "load"]


def load(
    checkpoint: str | Path | None = None, *, engine: str = "auto", device: str = "auto"
) -> Model:
    """Open a trained model for writing: see charlm.api.

    Args:
        checkpoint: a file, or a run folder (its best, else its last); by default the newest run
            under checkpoints/.
        engine: native, numpy, torch or auto.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        CharlmError: there is no such checkpoint, engine or device.
    """
    from charlm import api

    return api.load(checkpoint, engine, device)
