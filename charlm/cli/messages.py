"""Messages of the library as the command line shows them."""

from __future__ import annotations

import re

ARGUMENTS = (
    "data|device|engine|force|format|init_from|name|on_unknown|out|precision|resume|set|split|"
    "weights"
)


def as_options(message: str, verb: str = "") -> str:
    """Show a message of the library to the user of a verb.

    The library's arguments become options: `device=cpu` becomes `--device cpu`, and `resume=True`
    becomes `--resume`. Advice to change a setting is replaced for a verb without --set.
    """

    def option(found: re.Match[str]) -> str:
        name, value = found[1].replace("_", "-"), found[2]
        return f"--{name}" if value == "True" else f"--{name} {value}"

    if verb == "inspect":
        message = re.sub(r"(?<![\w.-])data=(.+) split=\w+", r"--text \1", message)
    if verb == "eval":
        message = re.sub(r"\beval\.(protocol|window)\b", r"--\1", message)
    if verb in ("eval", "inspect", "sample"):
        message = _without_settings(message, verb)
    message = re.sub(rf"(?<![\w.-])({ARGUMENTS})=(True\b|(?=\S))", option, message)
    if verb == "train":
        message = _with_set(message)
    return message.replace("--name ", "--set name=") if verb == "config check" else message


def _with_set(message: str) -> str:
    """Write `--set` before the settings in advice: after the first semicolon or colon."""
    what, *advice = re.split("(; |: )", message, maxsplit=1)
    setting = r"(?<!-)(?<!--set )(?:\bset )?(?<![\w.-])([a-z]+\.[a-z_.]+=)(?=\S)"
    return what + re.sub(setting, r"--set \1", "".join(advice))


def _without_settings(message: str, verb: str) -> str:
    """Replace advice to change settings, for a verb that takes its settings from the model."""
    from charlm.config.reference import settings

    dotted = "|".join(setting.key for setting in settings() if "." in setting.key)
    what, *advice = message.split("; ")
    useful = [line for line in advice if not re.search(rf"\b({dotted})\b", line)]
    if len(useful) < len(advice):
        useful.append(f"{verb} reads it with the settings of the model, so change the text")
    return "; ".join([what, *useful])
