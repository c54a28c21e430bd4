"""Values and names as messages show them: bounded, printable, on one line."""

from __future__ import annotations

import reprlib
from typing import Any

MAX_CHARS = 80


class _Repr(reprlib.Repr):
    """Looks only at the beginning of a value, which may be large, deep, or contain itself."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxlong = self.maxother = 2 * MAX_CHARS
        self.maxdict = self.maxlist = self.maxtuple = MAX_CHARS // 4

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write an integer of more than 4,300 digits."""
        return super().repr_int(x, level) if x.bit_length() < 1000 else "a very large integer"


def shown(value: Any) -> str:
    """Return the first MAX_CHARS characters of a value's repr."""
    return f"{_Repr().repr(value):.{MAX_CHARS}}"


def plain(text: str, max_chars: int = MAX_CHARS) -> str:
    """Return a text unchanged if it is short and printable, otherwise as `shown` does."""
    return text if text.isprintable() and 0 < len(text) <= max_chars else shown(text)
