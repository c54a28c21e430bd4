"""Damaged and malicious texts and caches for scripts/faults hostile."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import random
from pathlib import Path
from typing import Any

from faults_files import Elsewhere, replace_by_another_kind
from faults_values import STRINGS, change_bytes, change_tree

LINE = "the quick brown fox jumps over the lazy dog, naïve ☂\n"


def write_hostile_text(rng: random.Random, path: Path, elsewhere: Elsewhere) -> tuple[str, str]:
    """Write a text that is damaged or malicious.

    Returns:
        What to give to charlm as its path, and what is wrong with it.
    """
    way = rng.random()
    if way < 0.15:
        return path.name, replace_by_another_kind(rng, path, elsewhere)
    if way < 0.35:
        return _folder(rng, path, elsewhere)
    name, content = rng.choice(_contents(rng))
    if way > 0.7:
        content, how = change_bytes(rng, content)
        name = f"{name}, {how}"
    ending = rng.choice(("", "", ".txt", ".gz", ".xz", ".bz2"))
    chosen = path.with_name(path.name + ending)
    chosen.write_bytes(content)
    return chosen.name, f"{name}{' named ' * bool(ending)}{ending}"


def _contents(rng: random.Random) -> list[tuple[str, bytes]]:
    text = LINE * rng.choice((1, 30, 300))
    string = rng.choice(STRINGS).encode("utf-8", "surrogatepass")
    encoding = rng.choice(("utf-16", "utf-16-be", "utf-32", "cp1252", "utf-8-sig"))
    every = "".join(chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000)
    return [
        ("random bytes", rng.randbytes(rng.choice((1, 100, 50_000)))),
        (encoding, text.encode(encoding, "replace")),
        ("gzip", gzip.compress(text.encode())),
        ("xz", lzma.compress(text.encode())),
        ("bz2", bz2.compress(text.encode())),
        ("a gzip of zeros", gzip.compress(b"\0" * 10**7)),
        ("zeros", b"\0" * 10_000),
        ("one character", b"a" * 10_000),
        ("one line", b"ab" * 500_000),
        ("line ends", b"\n" * 5000),
        ("carriage returns", text.replace("\n", "\r").encode()),
        ("controls", bytes(range(32)) * 300),
        ("every character", every.encode()),
        ("half a character", text.encode() + "☂".encode()[:2]),
        ("surrogates", (text + "\ud800").encode("utf-8", "surrogatepass")),
        ("a hostile string", string * 50 + text.encode()),
        ("an executable", b"\x7fELF" + rng.randbytes(2000)),
        ("a picture", b"\x89PNG\r\n\x1a\n" + rng.randbytes(2000)),
        ("a pdf", b"%PDF-1.7\n" + rng.randbytes(2000)),
        ("short", b"ab"),
    ]


def _folder(rng: random.Random, path: Path, elsewhere: Elsewhere) -> tuple[str, str]:
    """A folder with a good text and something else."""
    path.mkdir()
    (path / "good.txt").write_text(LINE * 50, encoding="utf-8")
    names = ("\x1b[31m.txt", "two\nlines.txt", "-", "a b", "*", "{x}", "é.txt", "..txt", "☂" * 60)
    odd = path / rng.choice(names)
    if rng.random() < 0.5:
        how = replace_by_another_kind(rng, odd, elsewhere)
    else:
        _, content = rng.choice(_contents(rng))
        odd.write_bytes(content)
        how = "another text"
    pattern = rng.choice(
        (path.name, f"{path.name}/*", f"{path.name}/**", f"{path.name}/{odd.name}")
    )
    return pattern, f"{pattern!r} with {odd.name[:20]!r}, {how}"


# --- the cache -------------------------------------------------------------------------------


def change_cache(rng: random.Random, cache: Path, elsewhere: Elsewhere) -> str:
    """Damage something in the cache; returns what was done."""
    paths = [path for path in cache.rglob("*") if not path.is_symlink()]
    path = rng.choice(sorted(paths))
    name = path.relative_to(cache).as_posix()
    if len(path.name) == 64:
        name = name.replace(path.name, "KEY")
    way = rng.random()
    if way < 0.15 and (facts := _facts(cache)):
        return _forge(rng, rng.choice(facts))
    if way < 0.25:
        made = cache / "encoded" / rng.choice(("tmp-x", "tmp-0123456789abcdef", "f" * 64))
        return f"{made.name[:24]}: {replace_by_another_kind(rng, made, elsewhere)}"
    if way < 0.5 or path.is_dir():
        return f"{name}: {replace_by_another_kind(rng, path, elsewhere)}"
    content, how = change_bytes(rng, path.read_bytes())
    path.write_bytes(content)
    return f"{name}: {how}"


def _facts(cache: Path) -> list[Path]:
    return sorted(cache.glob("encoded/*/facts.json"))


def _forge(rng: random.Random, path: Path) -> str:
    """Change facts.json, with the correct hash of the new content."""
    stored: dict[str, Any] = json.loads(path.read_bytes())
    how = change_tree(rng, stored["facts"])
    try:
        stored["seal"] = hashlib.sha256(json.dumps(stored["facts"]).encode()).hexdigest()
        path.write_text(json.dumps(stored), encoding="utf-8")
    except ValueError:
        path.write_text("{", encoding="utf-8")
    return f"forged facts: {how}"
