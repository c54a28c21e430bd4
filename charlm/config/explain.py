"""Messages for the validation errors of a config."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from charlm.config.base import NUMBER_TAG, SMALLEST
from charlm.config.data import OLD_NAMES
from charlm.config.elsewhere import NAMES_ELSEWHERE
from charlm.config.reference import settings
from charlm.config.shown import plain, shown

MAX_PROBLEMS = 20  # that are explained


def explain(error: ValidationError, hints: Mapping[str, str] | None = None) -> list[str]:
    """One line per problem, which starts with the dotted name of the setting.

    At most MAX_PROBLEMS errors are explained. An error may have several lines.

    Args:
        hints: ends of the lines about wrong or missing values, by the dotted names of settings.
    """
    details = error.errors()[:MAX_PROBLEMS]
    return [line for detail in details for line in _explain(detail, hints or {})]


_TAGGED = ("model", "optimizer", "schedule")  # groups whose keys depend on `kind`


def _explain(detail: ErrorDetails, hints: Mapping[str, str]) -> list[str]:
    """The lines for one pydantic error."""
    loc = [plain(str(part)) for part in detail["loc"]]
    # pydantic puts the kind into the path, right after the name of the group
    tags = [loc[i] for i in range(1, len(loc)) if loc[i - 1] in _TAGGED]
    keys = [part for i, part in enumerate(loc) if i == 0 or loc[i - 1] not in _TAGGED]
    if keys[-1:] == [NUMBER_TAG]:
        keys.pop()
    dotted, given = ".".join(keys), detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":  # raised by `Group`: lines of the form `key: message`
            prefix = f"{dotted}." if dotted else ""
            return [prefix + line for line in str(context["error"]).splitlines()]
        case "extra_forbidden":
            return [_unknown_key(keys, tags)]
        case "missing":
            return [f"{dotted}: missing{hints.get(dotted) or _hint_to_set(dotted)}"]
        case "union_tag_invalid":
            known = re.findall(r"'([^']+)'", str(context["expected_tags"]))
            tag = plain(str(context["tag"]))
            close = difflib.get_close_matches(tag.lower(), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return [f"{dotted}.kind: {tag} is not one of {', '.join(known)}{hint}"]
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal" as error:
            (bound,) = context.values()
            number = f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
            words = error.replace("_", " ").replace("equal", "or equal to")  # "less than or ..."
            if bound == SMALLEST and given <= 0:
                words, number = "above", "0"
            return [f"{dotted}: {shown(given)} should be {words} {number}"]
        case error:
            message = detail["msg"].removeprefix("Input should be ")
            expected = _EXPECTED.get(error, message[0].lower() + message[1:])
            prefix = f"{dotted}: " if dotted else "the key "  # a key that is not a string
            return [f"{prefix}{shown(given)} should be {expected}{hints.get(dotted, '')}"]


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a group of settings",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "a smaller integer",
    "int_type": "an integer",
    "model_attributes_type": "a group of settings",
    "model_type": "a group of settings",
    "string_type": "a string; put it in quotes",
    "string_unicode": "valid Unicode, without lone surrogates",
    "too_long": "a list of 2 numbers",  # betas
    "too_short": "a list with at least one entry",
    "tuple_type": "a list of 2 numbers",
}


def _unknown_key(keys: list[str], tags: list[str]) -> str:
    *group, leaf = keys
    if group == ["data"] and leaf in OLD_NAMES:
        new = f"data.{OLD_NAMES[leaf]}"
        return f"data.{leaf}: this is the old name of {new}, which is given too; leave it out"
    kind = tags[-1] if tags else None
    known = [
        key
        for setting in settings()
        if (key := setting.key.split("."))[:-1] != group or not kind or kind in setting.only
    ]
    siblings = sorted({key[len(group)] for key in known if key[: len(group)] == group})
    leaves = {key[-1]: ".".join(key) for key in reversed(known)}
    if owners := [s.only for s in settings() if s.key == ".".join(keys)]:
        kinds = ", ".join(kind for only in owners for kind in only)
        return f"{'.'.join(keys)}: unknown key for kind {kind}; it exists only for {kinds}"
    if leaf in leaves:
        hint = f"did you mean {leaves[leaf]}?"
    elif leaf in NAMES_ELSEWHERE:
        hint = f"did you mean {NAMES_ELSEWHERE[leaf]}?"
    elif close := difflib.get_close_matches(leaf, siblings, 1):
        hint = f"did you mean {'.'.join([*group, close[0]])}?"
    elif close := difflib.get_close_matches(leaf, leaves, 1):
        hint = f"did you mean {leaves[close[0]]}?"
    else:
        hint = f"known keys: {', '.join(siblings)}"
    of_kind = f" for kind {kind}" if kind else ""
    return f"{'.'.join(keys)}: unknown key{of_kind}; {hint}"


def _hint_to_set(dotted: str) -> str:
    """How to set a missing setting, or the required setting of a missing group."""
    for setting in settings():
        required = setting.key.startswith(f"{dotted}.") and not setting.default
        if setting.key == dotted or required:
            meaning, *_ = re.split("[:;(]", setting.meaning)
            return f"; set {setting.key} ({meaning.strip()})"
    return ""
