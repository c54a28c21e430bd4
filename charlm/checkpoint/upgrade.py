"""From the metadata of older formats to today's, one step for each, so that no model is lost when a
setting is renamed.

To change the format: raise FORMAT in format.py, add a step here, and keep a file of the old format
(tests/checkpoint/formats/README.md says how).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from charlm.checkpoint.format import FORMAT

Metadata = dict[str, Any]


def _from_1(meta: Metadata) -> Metadata:
    """Format 2 records in which precision Muon computes its products; before, it was bfloat16."""
    return {"muon": "bf16"} | meta


_STEPS: dict[int, Callable[[Metadata], Metadata]] = {1: _from_1}


def upgraded(meta: Metadata) -> Metadata:
    """The metadata of a checkpoint of any format up to FORMAT, as FORMAT has it.

    Args:
        meta: with its own `format`; what is not known to this version is left to be refused.
    """
    for version in range(max(1, meta["format"]), FORMAT):
        meta = _STEPS[version](meta) | {"format": version + 1}
    return meta
