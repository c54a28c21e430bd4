"""Names of runs. A name is also a folder, so it must be one on every system."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from charlm.config.base import Text

MAX_NAME_BYTES = 200  # in UTF-8; file systems allow 255, or less with encryption
_RESERVED = {"con", "prn", "aux", "nul"} | {  # by Windows
    f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³"
}


def is_name_char(char: str) -> bool:
    """Whether a name may contain a character: letters, digits and marks of every script, and some
    others."""
    return unicodedata.category(char)[0] in "LMN" or char in " ._+-()"


def name_problem(name: str) -> str | None:
    """Return the rule that a name breaks; None if it is valid."""
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"at most {MAX_NAME_BYTES} bytes long in UTF-8"
    if (
        not all(map(is_name_char, name))
        or unicodedata.category(name[:1] or " ")[0] not in "LN"
        or name.endswith((" ", "."))
    ):
        return (
            "letters, digits, spaces and . _ + - ( ), with a letter or a digit at the start and no "
            "space or dot at the end"
        )
    if name.split(".")[0].rstrip().lower() in _RESERVED:
        return "another name, since Windows reserves this one"
    return None


def _as_name(given: str) -> str:
    """Compose letters and their marks, so that a name which looks the same is the same folder."""
    name = unicodedata.normalize("NFC", given)
    if problem := name_problem(name):
        raise PydanticCustomError("mistyped", problem)
    return name


RunName = Annotated[Text, AfterValidator(_as_name)]
