"""Damaged and malicious configs for scripts/faults hostile."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml
from faults_files import Elsewhere, replace_by_another_kind
from faults_values import STRINGS, change_bytes, change_tree, deep, paths


def write_hostile_config(rng: random.Random, base: Path, path: Path, elsewhere: Elsewhere) -> str:
    """Write a config that is damaged or malicious, made from the one at `base`; returns what is
    wrong with it."""
    settings = json.loads(base.read_text(encoding="utf-8"))
    way = rng.random()
    if way < 0.03:
        return replace_by_another_kind(rng, path, elsewhere)
    if way < 0.5:
        return _changed(rng, settings, path)
    if way < 0.6:
        chosen = rng.choice(paths(str(elsewhere.folder), str(elsewhere.fifo)))
        settings["data"][rng.choice(("path", "val_path"))] = chosen
        path.write_text(_dump(settings), "utf-8", "surrogatepass")
        return f"path {chosen!r:.60}"
    if way < 0.8:
        name, text = rng.choice(_nasty(rng, _dump(settings)))
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return name
    content, how = change_bytes(rng, yaml.safe_dump(settings).encode())
    path.write_bytes(content)
    return how


def _changed(rng: random.Random, settings: Any, path: Path) -> str:
    changes = [change_tree(rng, settings) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    path.write_text(_dump(settings), "utf-8", "surrogatepass")
    return ", ".join(changes)


def _dump(settings: Any) -> str:
    """The config as JSON, which is also YAML."""
    return json.dumps(settings, ensure_ascii=False)


def _nasty(rng: random.Random, text: str) -> list[tuple[str, str | bytes]]:
    """YAML that takes much time or memory, or that parsers read differently."""
    string = rng.choice(STRINGS)
    levels = rng.choice((5, 9, 12))
    aliases = "\n".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(levels)
    )
    merges = "\n".join(
        f"a{i}: &a{i} {{{', '.join([f'<<: *a{i - 1}'] * 2) if i else 'x: 1'}}}"
        for i in range(levels * 2)
    )
    digits = "9" * rng.choice((400, 4301, 6000, 10**6))
    where = rng.choice(("train: {seed: %s}", "model: {hidden_size: %s}", "x: %s", "name: %s"))
    return [
        ("a bomb of aliases", f"{aliases}\nname: *a{levels - 1}"),
        ("a bomb of aliases as a value", f"{aliases}\ndata: {{path: *a{levels - 1}}}"),
        ("a bomb of merges", merges),
        ("a cycle", "data: &a {path: *a}"),
        ("a cyclic list", "name: &a [*a]"),
        ("deep", json.dumps(deep(rng.choice((100, 800)))) + "\n"),
        ("very deep", "[" * rng.choice((5000, 100_000))),
        ("deep blocks", "".join(f"{' ' * i}a:\n" for i in range(rng.choice((200, 1500))))),
        ("deep minus", "- " * rng.choice((1000, 5000)) + "x"),
        ("digits", where % digits),
        ("a float of digits", where % f"0.{digits}"),
        ("an exponent", where % f"1e{digits[:400]}"),
        ("a tag", where % f"!!python/object/apply:os.system ['{string[:20]!a}']"),
        ("another tag", where % rng.choice(("!!binary x", "!!set {a}", "!x y", "!!timestamp 1"))),
        ("a date", where % "2001-01-01"),
        ("sexagesimal", where % "1:60:60"),
        (
            "a key that is no string",
            rng.choice(("? [a]\n: b", "1: 2", "null: 1", "[a]: b", "~: x")),
        ),
        ("documents", text + "\n---\n" + text),
        ("a directive", "%YAML 9.9\n---\n" + text),
        ("a control character", text[:-1] + "\x1b}"),
        ("controls in quotes", f"name: {json.dumps(string)}"),
        ("an unknown key", f"{json.dumps(string)}: 1\n"),
        ("an unknown key in a group", f"data: {{path: x, {json.dumps(string)}: 1}}\n"),
        ("an unknown kind", f"data: {{path: x}}\nmodel: {{kind: {json.dumps(string)}}}\n"),
        ("a long line", f"name: {'x' * 10**6}"),
        ("many keys", "\n".join(f"k{i}: 1" for i in range(20_000))),
        ("many problems", "train: {" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}"),
        ("empty sections", "data:\nmodel:\ntrain:\neval:\nsample:\n"),
        ("utf-16", text.encode("utf-16")),
        ("utf-32", text.encode("utf-32")),
        ("a mark", b"\xef\xbb\xbf" + text.encode()),
        ("latin-1", "name: é".encode("latin-1")),
        ("zeros", b"\0" * 1000),
        ("a surrogate", f"name: {string}\ud800"),
        ("tabs", "data:\n\tpath: x"),
        ("anchors", "\n".join(f"a{i}: &x{i} y" for i in range(5000))),
    ]
