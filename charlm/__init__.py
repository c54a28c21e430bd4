"""charlm: train character-level language models, sample from them, and inspect them.

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
    """Load a trained model to sample from it and to score texts; see charlm.api.Model.

    Args:
        checkpoint: a file, or a run folder (its best checkpoint, otherwise its last). The default
            is the newest run under checkpoints/.
        engine: native, numpy, torch or auto; see charlm.sampling.engines.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        CharlmError: the checkpoint, engine or device is not available.
    """
    from charlm import api

    return api.load(checkpoint, engine, device)
