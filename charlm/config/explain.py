"""What is wrong with a config, in plain words."""

from __future__ import annotations

import difflib
import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from charlm.config.reference import settings


def explain(error: ValidationError) -> list[str]:
    """A line for each problem, headed by the setting's dotted name."""
    return [line for detail in error.errors() for line in _explain(detail)]


_TAGGED = ("model", "optimizer", "schedule")  # groups whose `kind` chooses their fields


def _explain(detail: ErrorDetails) -> list[str]:
    """One line for each problem in a pydantic error, with its dotted name."""
    loc = [str(part) for part in detail["loc"]]
    # pydantic puts the chosen kind into the path, right after the group's name
    tags = [loc[i] for i in range(1, len(loc)) if loc[i - 1] in _TAGGED]
    keys = [part for i, part in enumerate(loc) if i == 0 or loc[i - 1] not in _TAGGED]
    dotted, given = ".".join(keys), detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":  # from our own validators: `key: text` lines
            prefix = f"{dotted}." if dotted else ""
            return [prefix + line for line in str(context["error"]).splitlines()]
        case "extra_forbidden":
            return [_unknown_key(keys, tags)]
        case "missing":
            return [f"{dotted}: missing{_meaning(dotted)}"]
        case "union_tag_invalid":
            known = re.findall(r"'([^']+)'", str(context["expected_tags"]))
            close = difflib.get_close_matches(str(context["tag"]), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return [f"{dotted}.kind: {context['tag']} is not one of {', '.join(known)}{hint}"]
        case "model_type" | "model_attributes_type" | "dict_type":
            return [f"{dotted}: a group of settings is wanted here, not {given!r}"]
        case kind:
            message = detail["msg"].removeprefix("Input should be ")
            wanted = _WANTED.get(kind, message[0].lower() + message[1:])
            return [f"{dotted}: {given!r:.80} should be {wanted}"]


_WANTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "string_pattern_mismatch": "letters, digits and any of . _ + - after the first",
    "string_too_long": "shorter",
    "too_short": "a list of one or more",
    "string_too_short": "some text",
    "string_type": "text; put it in quotes",
}


def _unknown_key(keys: list[str], tags: list[str]) -> str:
    *group, leaf = keys
    kind = tags[-1] if tags else None
    known = [
        key
        for setting in settings()
        if (key := setting.key.split("."))[:-1] != group or not kind or kind in setting.only
    ]
    beside = sorted({key[len(group)] for key in known if key[: len(group)] == group})
    leaves = {key[-1]: ".".join(key) for key in reversed(known)}
    if owners := [s.only for s in settings() if s.key == ".".join(keys)]:
        kinds = ", ".join(kind for only in owners for kind in only)
        return f"{'.'.join(keys)}: unknown key for kind {kind}; it is a setting of {kinds}"
    if leaf in leaves:
        hint = f"did you mean {leaves[leaf]}?"
    elif close := difflib.get_close_matches(leaf, beside, 1):
        hint = f"did you mean {'.'.join([*group, close[0]])}?"
    elif close := difflib.get_close_matches(leaf, leaves, 1):
        hint = f"did you mean {leaves[close[0]]}?"
    else:
        hint = f"known here: {', '.join(beside)}"
    of_kind = f" for kind {kind}" if kind else ""
    return f"{'.'.join(keys)}: unknown key{of_kind}; {hint}"


def _meaning(dotted: str) -> str:
    """What a missing setting, or the required one of a missing group, should say."""
    for setting in settings():
        if setting.key == dotted:
            return f"; {setting.meaning}"
        if setting.key.startswith(f"{dotted}.") and not setting.default:
            return f"; set {setting.key}: {setting.meaning}"
    return ""
