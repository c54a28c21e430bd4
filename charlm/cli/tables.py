"""Plain tables on standard output."""

from __future__ import annotations

from typing import Any


def print_table(rows: dict[str, Any]) -> None:
    """Print one line for each key and its value."""
    width = max(map(len, rows))
    for key, value in rows.items():
        print(f"{key:<{width}}  {value}")
