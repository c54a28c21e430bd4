"""Text from a file or a model, made safe to show.

A control character can move the cursor or change the title of a terminal. A format character can
change the order of the characters around it, and a line break can make one line look like two.
"""

from __future__ import annotations

from unicodedata import bidirectional, category

SAMPLE = "\n\t\u200c\u200d"  # lines, and the joiners, which Persian and many emoji need


def visible(text: str, keep: str = "") -> str:
    """Replace characters that are not visible by escapes such as \\n, \\x1b and \\u202e.

    They are the control and format characters, the line and paragraph separators, and bytes that
    are not valid UTF-8 (lone surrogates). The result is one line, if `keep` has no newline.

    Args:
        keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not is_hidden(c) else _escaped(c) for c in text)


def is_hidden(char: str) -> bool:
    """Whether `visible` replaces a character."""
    match category(char):
        case "Cc" | "Cs" | "Zl" | "Zp":
            return True
        case "Cf":
            return bidirectional(char) != "AN"  # the Arabic signs around numbers are visible
    return False


def _escaped(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # surrogateescape
        return f"\\x{ord(char) & 0xFF:02x}"
    return char.encode("unicode_escape").decode("ascii")
