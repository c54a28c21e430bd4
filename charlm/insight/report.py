"""One page of HTML that shows a survey, and needs nothing but a browser.

The page holds its style, its scripts and its data, and forbids itself every request. What a text
or a model wrote reaches it as JSON, and is put on the page as text only: it is never markup.

Data are a JSON object and, for what is told of each character and unit, arrays: little-endian,
row by row, compressed as zlib does, in base64.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import zlib
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from charlm.errors import CharlmError
from charlm.insight.attention import Stretch
from charlm.insight.record import Array
from charlm.insight.survey import Survey

LEVELS = (63, 31, 15, 7)  # steps on each side of zero that a unit's values are rounded to
MOST_BYTES = 4_000_000  # for all units together, compressed
MOST_VALUES = 16_000_000  # units times characters; beyond, the units that track least are left out
SCRIPTS = (
    "data.js",
    "charts.js",
    "text.js",
    "colour.js",
    "found.js",
    "attention.js",
    "bits.js",
    "main.js",
)


def check_free(path: Path, overwrite: bool) -> None:
    """Make sure, before the work, that a report may go to `path`.

    Raises:
        CharlmError: it may not.
    """
    if path.is_dir():
        raise CharlmError(f"{path}: is a folder; out takes the name of a file")
    if path.exists() and not overwrite:
        raise CharlmError(
            f"{path}: exists; force=True writes over it, out=FILE chooses another place"
        )
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise _unwritable(path, "no such folder, or not ours")


def write_report(path: Path, survey: Survey, about: dict[str, Any], overwrite: bool) -> None:
    """Put the page of a survey at `path`.

    Args:
        about: what the page says of the model and the text, as `charlm inspect` has it.

    Raises:
        CharlmError: it cannot be written there, or exists and is not to be overwritten.
    """
    page = build_page(survey, about).encode("utf-8")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(page)
        check_free(path, overwrite)  # once more: the work took a while
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, str(error.strerror)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _unwritable(path: Path, why: str) -> CharlmError:
    return CharlmError(f"{path}: cannot write the report: {why}; choose another place with out=DIR")


def build_page(survey: Survey, about: dict[str, Any]) -> str:
    """The page as a text."""
    numbers = survey.numbers()
    units, described = _units(survey)
    stretch, shapes = _stretch(survey.stretch)
    data = numbers | {"about": about, "units": described, "stretch": shapes}
    style = _read("style.css")
    script = "".join(_read(name) for name in SCRIPTS)
    script = f'"use strict";\n{script}'
    arrays = "\n".join(
        _script(name, each) for name, each in (_text(survey) | units | stretch).items()
    )
    return _filled(
        _read("template.html"),
        title=html.escape(f"{about['name']}: a look inside"),
        policy=f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{_sha256(script)}'; style-src 'sha256-{_sha256(style)}'",
        style=style,
        script=script,
        data=_json(data),
        arrays=arrays,
    )


def _filled(template: str, **parts: str) -> str:
    """The template with {{name}} replaced, in one pass: what is put in is not looked at again."""
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _json(data: Any) -> str:
    """JSON of ASCII only, in which no tag can begin, and of numbers that JSON has."""
    text = json.dumps(_finite(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(data: Any) -> Any:
    """Numbers to five digits, and null for those that are none."""
    if isinstance(data, float):
        return float(f"{data:.5g}") if np.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _read(name: str) -> str:
    return (resources.files("charlm.insight") / "page" / name).read_text(encoding="utf-8")


# --- arrays ----------------------------------------------------------------------------------


def _script(name: str, array: Array) -> str:
    """An array as an element that a browser does not look into."""
    kind, shape = array.dtype.str.lstrip("<|"), "x".join(map(str, array.shape))
    packed = base64.b64encode(zlib.compress(array.tobytes(), 6)).decode("ascii")
    return (
        f'<script type="application/octet-stream" id="array-{name}" data-kind="{kind}" '
        f'data-shape="{shape}">{packed}</script>'
    )


def _text(survey: Survey) -> dict[str, Array]:
    """What is told of each character."""
    told = survey.activations
    return {
        "ids": told.ids.astype("<u4"),
        "bits": np.nan_to_num(survey.bits, nan=-1.0).astype("<f4"),
        "guesses": told.guesses.astype("<u4"),
        "chances": (told.chances * 65535).round().astype("<u2"),
        "rises": np.stack(
            [np.nan_to_num(each.ablation.rise) for each in survey.tested]
            or [np.zeros(0, np.float32)]
        ).astype("<f4"),
    }


def _units(survey: Survey) -> tuple[dict[str, Array], dict[str, Any]]:
    """The units' values, unit by unit, rounded to as many levels as fit; and their places, their
    scales (the value of the highest level) and those for showing, which outliers do not stretch."""
    units, shown = survey.activations.units, _chosen(survey)
    rows, scales, usual = [], [], []
    for kind, layer, index in shown:
        values = units[kind][layer, :, index].astype(np.float32)
        sizes = np.abs(values)
        scales.append(float(sizes.max()) or 1.0)
        usual.append(float(np.quantile(sizes, 0.98)) or scales[-1])
        rows.append(values / scales[-1])
    values = np.stack(rows)  # (U, N)
    levels = next((n for n in LEVELS if _size(values, n) <= MOST_BYTES), LEVELS[-1])
    described = {
        "kinds": [{"kind": k, "layers": u.shape[0], "size": u.shape[2]} for k, u in units.items()],
        "places": shown,
        "scales": scales,
        "shown": usual,
        "levels": levels,
    }
    return {"units": np.round(values * levels).astype(np.int8)}, described


def _chosen(survey: Survey) -> list[tuple[str, int, int]]:
    """The units to show, by kind, layer and index: all; where these are too many, those that were
    found, and the first of each layer."""
    every = [
        (kind, layer, index)
        for kind, values in survey.activations.units.items()
        for layer in range(values.shape[0])
        for index in range(values.shape[2])
    ]
    found = [(unit.kind, unit.layer, unit.index) for each in survey.found for unit in each.units]
    wanted = dict.fromkeys([*found, *sorted(every, key=lambda place: place[2])])
    chosen = set(list(wanted)[: max(1, MOST_VALUES // len(survey.text))])
    return [place for place in every if place in chosen]


def _size(values: Array, levels: int) -> int:
    """About how many bytes all units take, from every eighth."""
    some = values[::8]
    packed = len(zlib.compress(np.round(some * levels).astype(np.int8).tobytes(), 1))
    return packed * len(values) // len(some)


def _stretch(stretch: Stretch | None) -> tuple[dict[str, Array], dict[str, Any] | None]:
    """Attention by its square root, in which little is not nothing, and queries, keys and values
    as thousandths of the largest."""
    if stretch is None:
        return {}, None
    arrays = {"attention": (255 * np.sqrt(stretch.attention)).round().astype(np.uint8)}
    scales = {}
    for name in ("queries", "keys", "values"):
        values = getattr(stretch, name)
        scales[name] = float(np.abs(values).max()) / 32767 or 1.0
        arrays[name] = (values / scales[name]).round().astype("<i2")
    L, H, T, K = stretch.queries.shape
    shapes = {"start": stretch.start, "layers": L, "heads": H, "length": T, "width": K}
    return arrays, shapes | {"scales": scales}
