"""Times that were measured once on this machine, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from charlm.files import build_folder, open_private, private_folder, write_file
from charlm.kernels.build import sources_digest
from charlm.machine import cpu_features

MAX_BYTES = 4096
ROUNDS = 3


def measured(
    key: str, names: Sequence[str], measure: Callable[[str], float], rounds: int = ROUNDS
) -> dict[str, float]:
    """Measure several ways to do the same thing on this machine, or take the times from the cache.

    Args:
        key: says what they do. An earlier measurement is used if its key, machine and sources of
            the kernels are the same.
        names: of the ways.
        measure: returns the seconds that the way of this name takes.
        rounds: how many times each way is measured. The ways are measured in turn, since other
            processes may disturb some measurements.

    Returns:
        The shortest seconds of each way, by name. They do not need the cache: without it, every
        call measures.
    """
    machine = [platform.node(), platform.machine(), *sorted(cpu_features())]
    text = "\0".join([key, *names, sources_digest(), *machine])
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.seconds"
    with suppress(OSError, ValueError, RecursionError):
        with open_private(private_folder("kernels") / name) as file:
            found: dict[str, float] = json.loads(file.read(MAX_BYTES))
        if _is_valid(found, names):
            return found
    times = [{name: measure(name) for name in names} for _ in range(rounds)]
    seconds = {name: min(each[name] for each in times) for name in names}
    with suppress(OSError):
        folder = private_folder("kernels", create=True)
        content = json.dumps(seconds).encode()
        with build_folder(folder, re.compile(re.escape(name))) as temporary:
            write_file(folder / name, content, temporary / name, 0o600)
    return seconds


def _is_valid(found: Any, names: Sequence[str]) -> bool:
    return (
        isinstance(found, dict)
        and sorted(found) == sorted(names)
        and all(isinstance(it, float) and 0 < it < math.inf for it in found.values())
    )
