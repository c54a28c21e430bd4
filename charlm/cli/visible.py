"""What a terminal is shown of a text it must not obey."""

from __future__ import annotations

from unicodedata import category


def visible(text: str) -> str:
    """The text with control characters, and bytes that are no text, as escapes."""
    return "".join(_escaped(c) if category(c) in ("Cc", "Cs") else c for c in text)


def _escaped(char: str) -> str:
    return char if char in "\n\t" else f"\\x{ord(char) & 0xFF:02x}"  # U+DCxx is the byte xx
