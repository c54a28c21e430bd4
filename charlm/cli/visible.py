"""Text of a model, made safe for a terminal."""

from __future__ import annotations

from unicodedata import category


def visible(text: str) -> str:
    """Replace control characters, and bytes that are not valid UTF-8, by escapes like \\x1b."""
    return "".join(_escaped(c) if category(c) in ("Cc", "Cs") else c for c in text)


def _escaped(char: str) -> str:
    return char if char in "\n\t" else f"\\x{ord(char) & 0xFF:02x}"  # U+DCxx is the byte xx
