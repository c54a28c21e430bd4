"""charlm: train character-level language models, sample from them, and inspect them.

import charlm

model = charlm.train("mybook.txt", minutes=2)
print(model.sample("Once ", length=200, temperature=0.8))

The functions are imported when they are first used: `import charlm` itself imports neither torch
nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from charlm.version import __version__

if TYPE_CHECKING:
    from charlm.api import Model, Settings, evaluate, inspect, load, runs, train

__all__ = ["Model", "Settings", "__version__", "evaluate", "inspect", "load", "runs", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("charlm.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
