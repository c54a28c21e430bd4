"""Hostile values for scripts/faults hostile: for fields of any type, and for bytes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

MARK = "</script><b>hostile"  # must not reach a page like this
STRINGS = (
    "",
    " ",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\rb",
    "two\nlines",
    "nul\0",
    "c1 \x9b31m",
    "\u2028\u2029",
    "\u202etxt.exe",
    "\ud800",
    "\udc80",
    MARK,
    "{0.__class__} %s %n",
    "../../../../elsewhere",
    "-",
    "--help",
    "$(touch owned)",
    "☂" * 300,
    "x" * 100_000,
    "nan",
    "null",
    "cuda:0",
    "cuda:99999999999",
    "meta",
    "mps",
    "lstm",
    "mlp",
    "gpt",
    "byte",
    "items",
    "1e999",
)
NUMBERS = (
    *(0, -1, 1, 2, 3, 7, 255, 256, 65_537, 10**6, 10**8, 10**9, 2**31 - 1, 2**31, 2**32, 2**53),
    *(2**63 - 1, 2**63, 2**64, 10**18, 10**30, -(2**63), 10**400),
    *(0.0, -0.0, 0.5, 1.0, 1.5, -1.5, 5e-324, 1e-320, 1e-45, 3.5e38, 1e39, 1e308),
    *(float("inf"), float("-inf"), float("nan")),
)
OTHERS: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], {"": ""}, [None], {"kind": None}),
    *(["x"] * 10_000, {str(i): i for i in range(2000)}, {"\x1b[2J": "\x07"}),
)


def paths(elsewhere: str, fifo: str) -> tuple[str, ...]:
    """Paths of a text that charlm must not read without end, and must not write to.

    Args:
        elsewhere: a folder that does not belong to charlm.
        fifo: a named pipe that nobody writes to.
    """
    return (
        *("/dev/zero", "/dev/stdin", "/dev/tty", "/dev/full", "/dev/urandom", "/proc/self/mem"),
        *("/proc/self/fd/0", "/proc/kmsg", "/nonexistent/text", "-", "", ".", "..", "**", "a\0b"),
        *(elsewhere, f"{elsewhere}/precious.txt", f"{elsewhere}/*", fifo, "builtin:python"),
        *("builtin:nothing", "http://localhost/x", "text8", "x" * 5000, "\x1b[31m", "{a,b}", "[!"),
    )


def value(rng: random.Random, old: Any) -> Any:
    """A hostile value for a field, often of the field's own type."""
    if rng.random() < 0.15:
        return copy.deepcopy(rng.choice(OTHERS))  # it may be changed, too
    if isinstance(old, bool) or old is None:
        return copy.deepcopy(rng.choice((*OTHERS, *NUMBERS, *STRINGS)))
    if isinstance(old, int | float) and rng.random() < 0.85:
        if rng.random() < 0.3:
            return type(old)(old * rng.choice((-1, 2, 3, 10, 1000, 0))) + rng.choice((-1, 0, 1))
        return rng.choice(NUMBERS)
    if isinstance(old, str) and rng.random() < 0.85:
        if rng.random() < 0.3 and old:
            at = rng.randrange(len(old))
            return old[:at] + rng.choice(STRINGS) + old[at + rng.randint(0, 2) :]
        return rng.choice(STRINGS)
    return rng.choice((*STRINGS, *NUMBERS))


def change_tree(rng: random.Random, tree: Any) -> str:
    """Change something in nested dictionaries and lists, in place; returns what was changed."""
    nodes = list(_nodes(tree))
    group, key, where = rng.choice(nodes)
    action = rng.random()
    if action < 0.1:
        del group[key]
        return f"{where} deleted"
    if action < 0.2 and isinstance(group, dict):
        group[rng.choice(STRINGS)[:200]] = value(rng, group[key])
        return f"a new key beside {where}"
    if action < 0.25 and isinstance(group, dict):
        group[key] = deep(rng.choice((50, 400)))
        return f"{where} nested deeply"
    group[key] = value(rng, group[key])
    return f"{where} = {group[key]!r:.60}"


def _nodes(tree: Any, where: str = "", depth: int = 9) -> Any:
    """Every group, key and dotted name in a tree, down to a depth."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, inner in list(items):
        name = f"{where}.{key}".strip(".")
        yield tree, key, name
        if isinstance(inner, dict | list) and depth:
            yield from _nodes(inner, name, depth - 1)


def deep(depth: int) -> list[Any]:
    """A list in a list, many levels deep."""
    tree: list[Any] = []
    for _ in range(depth):
        tree = [tree]
    return tree


# --- bytes -----------------------------------------------------------------------------------


def _flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[_place(rng, content)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(rng: random.Random, content: bytes) -> bytes:
    return content[: _place(rng, content)]


def _splice(rng: random.Random, content: bytes) -> bytes:
    """Copy a piece to another position; the length may change."""
    begin, at = _place(rng, content), _place(rng, content)
    piece = content[begin : begin + rng.choice((1, 8, 64, 512))]
    return content[:at] + piece + content[at + rng.choice((0, len(piece))) :]


def _overwrite(rng: random.Random, content: bytes) -> bytes:
    at, length = _place(rng, content), rng.choice((1, 4, 16, 256))
    fill = rng.choice((b"\0", b"\xff", b"\x1b", b"9", b'"', b"{", b"\n"))
    return content[:at] + fill * length + content[at + length :]


def _lengthen(rng: random.Random, content: bytes) -> bytes:
    return content + rng.randbytes(rng.choice((1, 7, 4096)))


_BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _splice,
    _overwrite,
    _lengthen,
)


def change_bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """Change bytes at random positions; returns the bytes and what was changed."""
    if not content:
        return b"\0", "a zero byte"
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = rng.choice(_BYTES)
        content = change(rng, content) or b"\0"
        done.append(change.__name__.strip("_"))
    return content, ", ".join(done)


def _place(rng: random.Random, content: bytes) -> int:
    """A position in bytes, more often near the start, where headers are."""
    size = min(len(content), rng.choice((16, 2000, len(content))))
    return rng.randrange(max(1, size))
