"""Damaged and malicious checkpoints for scripts/faults hostile."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults_compare import read_checkpoint
from faults_files import Elsewhere, replace_by_another_kind
from faults_values import NUMBERS, STRINGS, change_bytes, change_tree, deep, paths, value

DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F4", "I64", "I32", "U8", "BOOL", "C64", "", "V0")
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1, "C64": 8}


@dataclass
class Draft:
    """A checkpoint in pieces.

    Attributes:
        tensors: name, dtype, shape and bytes of each.
        metadata: instead of charlm's: anything, or "none".
        entries: changes of the tensors' entries in the header, which then does not fit the bytes.
        padding: spaces after the header; None to align the tensors to 8 bytes as safetensors does.
        length: the number in the first 8 bytes; None for the length of the header.
    """

    meta: dict[str, Any]
    tensors: list[tuple[str, str, list[int], bytes]]
    entries: dict[str, Any] = field(default_factory=dict)
    metadata: Any = None
    padding: int | None = None
    length: int | None = None

    @staticmethod
    def read(path: Path, text: str) -> Draft:
        """The pieces of a checkpoint, whose text is now at another path."""
        tensors, meta = read_checkpoint(path)
        meta["config"]["data"]["path"] = text
        return Draft(meta, [(name, *it) for name, it in tensors.items()])

    def content(self) -> bytes:
        """The file."""
        metadata = self.metadata or {"charlm": json.dumps(self.meta)}
        header: dict[str, Any] = {} if self.metadata == "none" else {"__metadata__": metadata}
        begin = 0
        for name, dtype, shape, data in self.tensors:
            end = begin + len(data)
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
            begin = end
        for name, change in self.entries.items():
            header[name] = {**header[name], **change} if isinstance(change, dict) else change
        text = json.dumps(header).encode("utf-8", "surrogatepass")
        text += b" " * (-len(text) % 8 if self.padding is None else self.padding)
        length = len(text) if self.length is None else self.length
        data = b"".join(data for *_, data in self.tensors)
        return struct.pack("<Q", length % 2**64) + text + data


Change = Callable[[random.Random, Draft, Elsewhere], str]


# --- the metadata ----------------------------------------------------------------------------


def _fields(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    return ", ".join(change_tree(rng, draft.meta) for _ in range(rng.choice((1, 1, 1, 2, 5))))


def _a_setting(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """One setting out of range: of the model, the evaluation, sampling or training."""
    group = draft.meta["config"][rng.choice(("model", "model", "model", "eval", "sample", "train"))]
    key = rng.choice([key for key in group if not isinstance(group[key], dict)])
    group[key] = value(rng, group[key])
    return f"{key} = {group[key]!r:.60}"


def _huge_model(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    model = draft.meta["config"]["model"]
    sizes = ("n_layer", "hidden_size", "n_embd", "n_head", "context")
    key = rng.choice([size for size in sizes if size in model])
    model[key] = rng.choice((20_000, 10**6, 10**8, 10**9, 2**31, 2**62, 10**30))
    if key == "context":
        draft.meta["config"]["train"]["seq_len"] = model[key]
    return f"model.{key} = {model[key]}"


def _a_path(rng: random.Random, draft: Draft, elsewhere: Elsewhere) -> str:
    data = draft.meta["config"]["data"]
    key = rng.choice(("path", "path", "path", "val_path", "include", "exclude"))
    chosen = rng.choice(paths(str(elsewhere.folder), str(elsewhere.fifo)))
    data[key] = rng.choice((chosen, [chosen], [data["path"], chosen]))
    return f"data.{key} = {data[key]!r:.60}"


def _text_everywhere(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """Strings that `info` and `inspect` show."""
    text = rng.choice(STRINGS)
    meta = draft.meta
    for group, key in rng.sample(
        [
            *((meta["corpus"], "source"), (meta["corpus"], "sha256"), (meta, "device")),
            *((meta["versions"], text), (meta, "kernel"), (meta["config"], "name"), (meta, text)),
            *((meta["versions"], "torch"), (meta["config"]["sample"], "prompt"), (meta, "vocab")),
            *((meta["config"]["data"], "separator"), (meta["log_sizes"], text)),
        ],
        rng.choice((1, 1, 3)),
    ):
        group[key] = text
    return f"text {text!r:.60}"


def _a_vocabulary(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    size = len(draft.meta["vocab"])
    controls = "".join(map(chr, range(size)))
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))
    draft.meta["vocab"] = rng.choice(
        (controls, controls[::-1], many, "a" * size, "\ud800" + many[: size - 1], "", many[:1])
    )
    return f"vocab {draft.meta['vocab']!r:.40}"


def _json(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """JSON that parsers read differently, or that takes much time."""
    text = json.dumps(draft.meta)
    nested = json.dumps(deep(rng.choice((200, 800))))
    many = "[" * rng.choice((5000, 10**6))
    number = "1" + "0" * rng.choice((400, 6000, 10**6))
    draft.metadata = rng.choice(
        (
            {"charlm": text.replace("{", '{"format": 99, ', 1)},
            {"charlm": text.replace('"step": ', f'"step": {number}, "x": ', 1)},
            {"charlm": text.replace("{", f'{{"x": {number}, ', 1)},
            {"charlm": text.replace("{", f'{{"x": {nested}, ', 1)},
            {"charlm": many},
            {"charlm": text.replace(", ", ", \n\x1b[31m", 1)},
            {"charlm": text.replace('"source": "', '"source": "\\ud800', 1)},
            {"charlm": "\ud800" + text},
            {"charlm": f"[{text}]"},
            {"charlm": draft.meta},
            {"charlm": text, "x" * 10**6: "\x1b"},
            *("none", [1], "charlm", {"charlm": None}, {"charlm": ""}, {"other": text}),
            deep(800),
        )
    )
    return f"metadata {str(draft.metadata)[:60]!r}"


# --- the tensors -----------------------------------------------------------------------------


def _a_tensor(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """A tensor of another type or shape, whose bytes fit what the header says."""
    i = rng.randrange(len(draft.tensors))
    name, dtype, shape, data = draft.tensors[i]
    dtype = rng.choice((dtype, *DTYPES))
    shape = rng.choice(
        (
            *(shape, shape[::-1], [math.prod(shape)], [1, *shape], [*shape, 1], [], [0], [0, 5]),
            *(shape[1:], [n + 1 for n in shape], [n // 2 for n in shape], [1] * 300),
        )
    )
    size = math.prod(shape) * _SIZES.get(dtype, 1)
    data = (data + rng.randbytes(min(size, 10**6)))[: min(size, 10**6)]
    draft.tensors[i] = (name, dtype, shape, data)
    return f"{name} is {shape} of {dtype}"


def _an_entry(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """An entry of the header that does not fit the bytes."""
    name, _, shape, data = rng.choice(draft.tensors)
    number = rng.choice(NUMBERS)
    change: Any = rng.choice(
        (
            *({"shape": [number]}, {"shape": [number, 0]}, {"shape": [*shape, number]}),
            *({"shape": None}, {"shape": "x"}, {"shape": [2**32, 2**32]}, {"shape": deep(500)}),
            *({"data_offsets": [number, number]}, {"data_offsets": [0, number]}),
            *({"data_offsets": [len(data), 0]}, {"data_offsets": [1]}, {"data_offsets": {}}),
            *({"data_offsets": [0, 2**63]}, {"data_offsets": [2**64 - 4, 2**64]}),
            *({"dtype": number}, {"dtype": rng.choice(STRINGS)}, {"dtype": ["F32"]}),
            *(None, [], 5, {}, "x", {"extra": "\x1b[31m"}),
        )
    )
    draft.entries[name] = change
    return f"entry {name}: {change!r:.60}"


def _names(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """Tensors that are missing, twice, too many, or have hostile names."""
    i = rng.randrange(len(draft.tensors))
    name, *tensor = draft.tensors[i]
    prefix = rng.choice(("model.", "optimizer.", "state.", "rng.", ""))
    action = rng.choice(("gone", "renamed", "added", "many"))
    if action == "gone":
        del draft.tensors[i]
    elif action == "renamed":
        draft.tensors[i] = (prefix + rng.choice(STRINGS)[:5000], *tensor)  # type: ignore[assignment]
    else:
        count = 3000 if action == "many" else 1
        new = f"{prefix}{rng.choice(STRINGS)[:50]}"
        draft.tensors += [(f"{new}{i}", "F32", [1], b"\0" * 4) for i in range(count)]
    return f"tensors: {name} {action}"


def _numbers(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """Weights and states that are not finite, or so large or small that results are not."""
    number = rng.choice((math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-45, 1e30, 1e20))
    prefix = rng.choice(("model.", "optimizer.", "state.", ""))
    chosen = [it for it in draft.tensors if it[0].startswith(prefix) and it[1] == "F32" and it[3]]
    if not chosen:
        return _a_tensor(rng, draft, _elsewhere)
    chosen = rng.choice((chosen, [rng.choice(chosen)]))
    for it in chosen:
        name, dtype, shape, data = it
        filled = bytearray(struct.pack("<f", number) * (len(data) // 4))
        if rng.random() < 0.5:
            filled[4:] = data[4:]
        draft.tensors[draft.tensors.index(it)] = (name, dtype, shape, bytes(filled))
    return f"{number} in {len(chosen)} tensors of {prefix or 'all'}"


def _layout(rng: random.Random, draft: Draft, _elsewhere: Elsewhere) -> str:
    """Tensors that are not aligned, or a length of the header that is wrong."""
    if rng.random() < 0.6:
        draft.padding = rng.randrange(1, 64)
        return f"{draft.padding} spaces after the header"
    draft.length = rng.choice((0, 1, 7, 8, 2**20, 2**27, 2**31, 2**32, 2**62, 2**63, 2**64 - 1))
    return f"a header of {draft.length} bytes"


# With their weights. They are made in this order, because _fields may remove a setting, and _names
# a tensor, that others need.
CHANGES: dict[Change, int] = {
    **{_a_setting: 3, _huge_model: 2, _a_path: 3, _text_everywhere: 3, _a_vocabulary: 1},
    **{_fields: 5, _json: 2, _a_tensor: 3, _numbers: 2, _names: 2, _an_entry: 2, _layout: 2},
}


def write_hostile(
    rng: random.Random, base: Path, path: Path, text: str, elsewhere: Elsewhere
) -> str:
    """Write a checkpoint that is damaged or malicious, made from the one at `base`.

    Args:
        path: the new file.
        text: the path of the text that it says it was trained on.

    Returns:
        What is wrong with it.
    """
    way = rng.random()
    if way < 0.04:
        return replace_by_another_kind(rng, path, elsewhere)
    draft = Draft.read(base, text)
    done = []
    if way < 0.75:
        chosen = rng.choices([*CHANGES], [*CHANGES.values()], k=rng.choice((1, 1, 1, 2)))
        for change in sorted(chosen, key=[*CHANGES].index):
            done.append(change(rng, draft, elsewhere))
    content = draft.content()
    if not done:
        content, how = change_bytes(rng, content)
        done.append(how)
    path.write_bytes(content)
    return "; ".join(done)
