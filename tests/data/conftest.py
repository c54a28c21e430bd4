"""Fixtures for the tests of encoded texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from charlm.data import cache as module


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of encoded texts. Files that were just written count as old."""
    monkeypatch.setenv("CHARLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_CLOCK_TICK", 0.0)
    return tmp_path / "cache" / "encoded"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A small text."""
    path = tmp_path / "text.txt"
    path.write_bytes("naïve café\n".encode())
    return path
