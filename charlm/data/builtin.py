"""Texts that come with Python."""

from __future__ import annotations

import hashlib
import importlib
import sysconfig
import tokenize
from collections.abc import Callable
from pathlib import Path

from charlm.errors import DataError

PREFIX = "builtin:"


def python_source() -> str:
    """The standard library of the running interpreter, without its tests, as one text.

    Files are ordered by a hash of their path, so that every part of the text is a representative
    sample of the whole. The same interpreter always gives the same text.

    Raises:
        DataError: the source of the library is not on this machine.
    """
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path for path in root.rglob("*.py") if not _SKIPPED & set(path.relative_to(root).parts[:-1])
    ]
    paths.sort(key=lambda path: hashlib.sha256(str(path.relative_to(root)).encode()).digest())
    texts = [text for path in paths if (text := _read_source(path))]
    if not texts:
        raise DataError(f"builtin:python: no Python source under {root}; name a text file instead")
    return "\n".join(texts)


_SKIPPED = {
    "__pycache__",
    "dist-packages",
    "encodings",  # tables, not code
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


def _read_source(path: Path) -> str:
    """The text of a source file in its declared encoding; empty if it cannot be read."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ""


def python_topics() -> str:
    """The help topics of the interpreter, sorted by title: English text in reStructuredText.

    Raises:
        DataError: this Python does not have them.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise DataError(
            "builtin:python-topics: this Python has no module pydoc_data; use builtin:python"
        ) from error
    return "\n\n".join(topics[title] for title in sorted(topics))


BUILTINS: dict[str, Callable[[], str]] = {"python": python_source, "python-topics": python_topics}


def read_builtin(path: str) -> str:
    """The text that the path `builtin:NAME` names.

    Raises:
        DataError: no built-in text has this name, or it is not on this machine.
    """
    name = path.removeprefix(PREFIX)
    if name not in BUILTINS:
        names = ", ".join(PREFIX + known for known in BUILTINS)
        raise DataError(f"{path}: no such built-in text; available: {names}")
    return BUILTINS[name]()
