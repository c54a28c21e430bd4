"""Builds a page for a browser as one file.

The file contains its style, its scripts and its data, and its policy forbids every request. A text,
and text sampled by a model, may contain anything. They reach the page as JSON, and its scripts show
them as text only, never as markup.

The data are a JSON object, and arrays: little-endian, in row-major order, compressed with zlib, in
base64.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PARTS = "page/parts"  # of the package
SHARED = ("data.js", "charts.js", "text.js", "words.js", "controls.js")  # scripts of every page


def build(
    title: str,
    style: str,
    script: str,
    data: Any,
    arrays: Mapping[str, Array],
    worker: str = "",
    wasm: bytes = b"",
) -> str:
    """The HTML of a page.

    Args:
        title: any text.
        style, script: CSS and JavaScript, from charlm only.
        data: what JSON can have.
        arrays: by name, for `unpack` in data.js.
        worker: the JavaScript of a Web Worker, if the page has one.
        wasm: a module of WebAssembly, if the page has one. It becomes the array `code`, and the
            policy then allows the page to compile WebAssembly, but still not to evaluate text.
    """
    script = '"use strict";\n' + script
    scripts = f"'sha256-{_sha256(script)}'"
    elements = [_array_element(name, array) for name, array in arrays.items()]
    if wasm:
        scripts += " 'wasm-unsafe-eval'"
        elements.append(_array_element("code", np.frombuffer(wasm, np.uint8)))
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src {scripts}; style-src 'sha256-{_sha256(style)}'"
    )
    if worker:
        policy += "; worker-src blob:"
        elements.append(f'<script type="text/plain" id="worker">"use strict";\n{worker}</script>')
    parts = {
        "title": html.escape(title),
        "policy": policy,
        "style": style,
        "script": script,
        "data": _json(data),
        "arrays": "\n".join(elements),
    }
    # in one pass: a {{name}} inside a part stays
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], read_parts(PARTS, "template.html"))


def read_parts(folder: str, *names: str) -> str:
    """The text of styles or scripts in a folder of the package, one after another."""
    files = resources.files("charlm") / folder
    return "".join((files / name).read_text(encoding="utf-8") for name in names)


def _json(data: Any) -> str:
    """Data as ASCII JSON without `<`, `>` and `&`, so that it cannot end its HTML element."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(data: Any) -> Any:
    """Data with numbers of five digits, and None for NaN and infinity."""
    if isinstance(data, float):
        return float(f"{data:.5g}") if np.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _array_element(name: str, array: Array) -> str:
    """An array as a script element of a type that browsers do not run."""
    kind, shape = array.dtype.str.lstrip("<|"), "x".join(map(str, array.shape))
    packed = base64.b64encode(zlib.compress(array.tobytes(), 6)).decode("ascii")
    return (
        f'<script type="application/octet-stream" id="array-{name}" data-kind="{kind}" '
        f'data-shape="{shape}">{packed}</script>'
    )
