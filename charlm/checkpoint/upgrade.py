"""Upgrading the metadata of older formats, one format at a time.

To change the format, raise FORMAT in format.py, add a step here, and keep a file of the old format
(see tests/checkpoint/formats/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from charlm.checkpoint.format import FORMAT

Metadata = dict[str, Any]


def _from_1(meta: Metadata) -> Metadata:
    """Format 2 records the precision of Muon's products; in format 1 it was always bfloat16."""
    return {"muon": "bf16"} | meta


_STEPS: dict[int, Callable[[Metadata], Metadata]] = {1: _from_1}


def upgraded(meta: Metadata) -> Metadata:
    """Upgrade the metadata of a checkpoint to FORMAT.

    Args:
        meta: of any format up to FORMAT. Its content is not checked here.
    """
    for version in range(meta["format"], FORMAT):
        meta = _STEPS[version](meta) | {"format": version + 1}
    return meta
