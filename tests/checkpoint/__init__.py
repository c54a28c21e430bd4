"""Helpers of the checkpoint tests: taking a file apart and putting it together again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tree = dict[str, Any]


def parts(path: Path) -> tuple[Tree, bytes]:
    """The header of a safetensors file, and the bytes after it."""
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def write_parts(path: Path, header: bytes | Tree, content: bytes) -> None:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content)


def change_header(path: Path, change: Callable[[Tree], Any]) -> None:
    """Change the header of a file."""
    header, content = parts(path)
    change(header)
    write_parts(path, header, content)


def change_metadata(path: Path, change: Callable[[Tree], Any]) -> None:
    """Change charlm's metadata in a file."""
    header, content = parts(path)
    metadata = json.loads(header["__metadata__"]["charlm"])
    change(metadata)
    header["__metadata__"]["charlm"] = json.dumps(metadata)
    write_parts(path, header, content)


def set_in(tree: Tree, key: str, value: Any) -> None:
    """Set a value by its dotted key."""
    *groups, last = key.split(".")
    for group in groups:
        tree = tree[group]
    tree[last] = copy.deepcopy(value)
