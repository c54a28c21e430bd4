"""Makes hostile configs out of good ones. Everything is decided by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from charlm.config.files import parse_config, to_yaml
from charlm.config.reference import settings

GOOD = [
    to_yaml(parse_config({"name": "a", "data": {"path": "a"}}, overrides)).encode()
    for overrides in (
        ["train.optimizer.kind=muon", "train.schedule.kind=wsd"],
        ["model.kind=gpt", "train.optimizer.kind=sgd", "data.include=[x, y]"],
        ["train.batches=items", "data.documents=lines", "train.schedule.kind=exponential"],
    )
]
TOKENS = [
    *"-?:,[]{}#&*!|>'\"%@`~\t\n\r \\",
    *("- ", ": ", "? ", "---\n", "...\n", "&a ", "*a", "<<: *a\n", "!!int ", "!!str ", "!!map "),
    *("!!binary ", "!!timestamp ", "!!python/object:os.system ", "!<%1b> ", "%YAML 9.9\n", "|2\n"),
    *("null", "true", "1e999", ".nan", ".inf", "-.inf", "0x10", "1:2:3", "9" * 400, "9" * 6000),
    *(
        '"\\ud800"',
        '"\\x1b[2J"',
        '"\\n"',
        '"\\U00110000"',
        '"\\0"',
        "\x1b[31m",
        "\x07",
        "\0",
        "\x7f",
    ),
    *("\x85", "\u2028", "\u202e", "\ufeff", "\ufffe", "\U0010ffff", "é", "\u200b", "\udcff"),
]
VALUES = [
    *("", "~", "true", "-1", "0", "1", "0.5", "1.5", "-0.0", "1e-320", "1e39", "1e308", "1e309"),
    *(".nan", "-.inf", "9223372036854775807", "9223372036854775808", "9" * 99, "9" * 6000, "'5'"),
    *("[]", "{}", "[[]]", "[1, 2]", "{a: 1}", "{kind: x}", "{kind: {a: [b]}}", "{kind: }", "''"),
    *(
        '"\\ud800"',
        '"\\x1b[2J\\a"',
        '"a\\nb"',
        '"\\0"',
        '"\\u202e"',
        '"../../x"',
        "'1e5'",
        "x" * 999,
    ),
    *(
        "[" * 15 + "]" * 15,
        "[" * 999,
        "{a: " * 19 + "}" * 19,
        "[" + "a, " * 2000 + "]",
        "2024-01-01",
    ),
]
KEYS = sorted({setting.key for setting in settings()})
KEYS += [
    "model",
    "train",
    "train.optimizer",
    "train.schedule",
    "data",
    "eval",
    "sample",
    "x",
    "x.y",
]
SUFFIXES = ["", "", ".kind", ".0", ".x.y", ".\x1b[2J", "\n", ".é\u202e"]


def _flip(content: bytes, rng: random.Random) -> bytes:
    """Change a few bytes."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _splice(content: bytes, rng: random.Random) -> bytes:
    """Repeat, remove or move a piece."""
    start, stop = sorted(rng.choices(range(len(content)), k=2))
    piece = content[start:stop] * rng.choice([0, 2, 2, 9])
    at = rng.randrange(len(content))
    return content[:at] + piece + content[at:] if rng.random() < 0.5 else content[:start] + piece


def _insert(content: bytes, rng: random.Random) -> bytes:
    """Insert tokens with a meaning in YAML, or that a terminal obeys."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        token = rng.choice(TOKENS).encode("utf-8", "surrogateescape")
        content = content[:at] + token + content[at:]
    return content


def _set(content: bytes, rng: random.Random) -> bytes:
    """Give settings hostile values, or give them below a setting."""
    lines = content.splitlines() or [b"a"]
    for _ in range(rng.randint(1, 3)):
        number = rng.randrange(len(lines))
        key, colon, _ = lines[number].partition(b":")
        lines[number] = b"%b%b %b" % (key, colon, rng.choice(VALUES).encode())
    return b"\n".join(lines)


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [_flip, _splice, _insert, _set, _set]


def hostile_file(seed: int) -> bytes:
    """A mutated config file."""
    rng = random.Random(seed)
    content = rng.choice(GOOD)
    for _ in range(rng.choice([1, 1, 2, 3])):
        content = rng.choice(MUTATIONS)(content, rng) or b" "
    return content


def hostile_override(seed: int) -> str:
    """A mutated KEY=VALUE."""
    rng = random.Random(seed)
    key = rng.choice(KEYS) + rng.choice(
        ["", "", ".kind", ".0", ".x.y", ".\x1b[2J", "\n", ".é\u202e"]
    )
    return f"{key}={rng.choice([*VALUES, *TOKENS])}"
