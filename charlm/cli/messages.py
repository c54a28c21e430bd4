"""Messages of the library as the command line shows them."""

from __future__ import annotations

import re

ARGUMENTS = "data|device|engine|force|init_from|name|on_unknown|out|precision|resume|set|split"


def as_options(message: str) -> str:
    """Replace the arguments in a library's message by command-line options: `device=cpu` by
    `--device cpu`, and `resume=True` by `--resume`."""

    def option(found: re.Match[str]) -> str:
        name, value = found[1].replace("_", "-"), found[2]
        return f"--{name}" if value == "True" else f"--{name} {value}"

    return re.sub(rf"(?<![\w.-])({ARGUMENTS})=(True\b|(?=\S))", option, message)
