"""What may have been meant by a verb or an option that does not exist."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Collection, Mapping

_VERBS = {  # of other programs, and what they are here
    "fit": "train",
    "learn": "train",
    "resume": "train --resume",
    "continue": "train --resume",
    "finetune": "train --init-from",
    "generate": "sample",
    "predict": "sample",
    "complete": "sample",
    "chat": "sample --interactive",
    "evaluate": "eval",
    "test": "eval",
    "score": "eval",
    "show": "info",
    "describe": "info",
    "summary": "info",
    "report": "inspect",
    "demo": "play",
    "web": "play",
    "visualize": "inspect",
    "stats": "data stats",
    "download": "data fetch",
    "fetch": "data fetch",
    "check": "config check",
    "schema": "config schema",
    "reference": "config reference",
    "settings": "config reference",
}
_OPTIONS = {  # of other programs; those that are settings are in config/elsewhere.py
    "--dataset": "--data",
    "--data-dir": "--data",
    "--input": "--data",
    "--out-dir": "--out",
    "--output-dir": "--out",
    "--output": "--out",
    "--checkpoint-dir": "--out",
    "--savefile": "--name",
    "--gpuid": "--device",
    "--gpu": "--device",
    "--cuda": "--device",
    "--start": "--prompt",
    "--primetext": "--prompt",
    "--max-new-tokens": "--length",
    "--diversity": "--temperature",
}


def verb_hint(word: str, verbs: Collection[str]) -> str:
    """The end of the message about a verb that does not exist: what may have been meant.

    Args:
        verbs: those that exist in its place.
    """
    if "train" in verbs and (os.path.exists(word) or word.endswith(".txt")):  # noqa: PTH110
        return f"; to train on a text: charlm train {shlex.quote(word)}"
    if close := difflib.get_close_matches(word.lower(), verbs, 1):
        return f"; did you mean {close[0]}?"
    if "train" in verbs and (meant := _VERBS.get(word.lower())):
        return f"; did you mean {meant}?"
    return f"; choose {', '.join(verbs)}"


def is_known(option: str, options: Collection[str]) -> bool:
    """Whether `option` is one of a verb's options, or another program's name for one of them."""
    name = option.replace("_", "-")
    return name in options or _OPTIONS.get(name) in options


def option_hint(
    option: str,
    value: str,
    options: Collection[str],
    flags: Mapping[str, str],
    others: Mapping[str, Collection[str]],
) -> str:
    """The end of the message about an option that does not exist: what may have been meant.

    Args:
        option: as it was given, without its value.
        value: what was given for it; empty for nothing.
        options: those that the verb has.
        flags: the options of the verb that set a setting, by the dotted name of the setting.
        others: the options of each other verb, by its name.
    """
    if os.path.lexists(option):
        return f"; for the file of this name: {shlex.quote(f'./{option}')}"
    name = "--" + option.lstrip("-").replace("_", "-")
    ending = f" {shlex.quote(value)}" if value else ""
    if (meant := name if name in options else _OPTIONS.get(name)) in options:
        return f"; did you mean {meant}{ending}?"
    if "--set" in options:
        from charlm.config.elsewhere import setting_named  # slow to import

        key = setting_named(name.removeprefix("--").replace("-", "_")) or ""
        if key in flags:
            return f"; did you mean {flags[key]}{ending}?"
        if key:
            return f"; did you mean --set {key}={shlex.quote(value or 'VALUE')}?"
    if verbs := [verb for verb, theirs in others.items() if option in theirs]:
        return f"; it is an option of charlm {', '.join(verbs[:3])}"
    close = difflib.get_close_matches(name, options, 1) if len(name) > len("--a") else []
    return f"; did you mean {close[0]}{ending}?" if close else ""
