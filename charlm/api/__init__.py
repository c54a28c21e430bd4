"""The library: what `import charlm` offers.

Loading a model, sampling and scoring need no torch. The other functions import it when they are
called.
"""

from charlm.api.evaluating import evaluate
from charlm.api.inspecting import inspect
from charlm.api.listing import runs
from charlm.api.model import Model, Settings, load, open_model
from charlm.api.training import train
from charlm.checkpoint.runs import Summary

__all__ = [
    "Model",
    "Settings",
    "Summary",
    "evaluate",
    "inspect",
    "load",
    "open_model",
    "runs",
    "train",
]
