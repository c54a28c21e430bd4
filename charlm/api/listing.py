"""Listing the runs in a folder."""

from __future__ import annotations

from pathlib import Path

from charlm.api.arguments import notify
from charlm.checkpoint.runs import Summary, find_runs


def runs(folder: str | Path = "checkpoints") -> list[Summary]:
    """The runs in a folder, or the run that it is; the one that was saved last comes first.

    Only the metadata of their checkpoints are read. A run that cannot be read is left out, with a
    warning of the logger `charlm`.

    Raises:
        CheckpointError: there is no such folder.
    """
    return find_runs(Path(folder), notify)
