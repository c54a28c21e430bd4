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
            return [f"{dotted}: missing; {_meaning(dotted)}"]
        case "union_tag_invalid":
            known = re.findall(r"'([^']+)'", str(context["expected_tags"]))
            close = difflib.get_close_matches(str(context["tag"]), known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return [f"{dotted}.kind: {context['tag']} is not one of {', '.join(known)}{hint}"]
        case "model_type" | "model_attributes_type" | "dict_type":
            return [f"{dotted}: a group of settings is wanted here, not {given!r}"]
        case "string_pattern_mismatch":
            allowed = "letters, digits and any of . _ + - after the first"
            return [f"{dotted}: {given!r} should be {allowed}"]
        case _:
            message = detail["msg"].removeprefix("Input should be ")
            return [f"{dotted}: {given!r} should be {message[0].lower()}{message[1:]}"]


def _unknown_key(keys: list[str], tags: list[str]) -> str:
    *group, leaf = keys
    kind = tags[-1] if tags else None
    known = [(setting.key.split("."), setting.only) for setting in settings()]
    beside = sorted(
        {
            key[len(group)]
            for key, only in known
            if key[: len(group)] == group and (not kind or not only or kind in only)
        }
    )
    leaves = {key[-1]: ".".join(key) for key, _ in reversed(known)}
    if close := difflib.get_close_matches(leaf, beside, 1):
        hint = f"did you mean {'.'.join([*group, close[0]])}?"
    elif close := difflib.get_close_matches(leaf, leaves, 1):
        hint = f"did you mean {leaves[close[0]]}?"
    else:
        hint = f"known here: {', '.join(beside)}"
    of_kind = f" for kind {kind}" if kind else ""
    return f"{'.'.join(keys)}: unknown key{of_kind}; {hint}"


def _meaning(dotted: str) -> str:
    return next((setting.meaning for setting in settings() if setting.key == dotted), "set it")
