"""Writes a survey as one HTML file that needs only a browser.

The data are a JSON object, and arrays for the values of each character and unit. charlm.page has
the format of the file.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from charlm.insight.attention import AttentionWindow
from charlm.insight.record import Array
from charlm.insight.survey import Survey
from charlm.outputs import write_output
from charlm.page.document import PARTS, SHARED, build, read_parts
from charlm.visible import visible

LEVELS = (63, 31, 15, 7)  # steps on each side of zero to which the values of units are rounded
MAX_BYTES = 4_000_000  # of all units together, compressed
MAX_VALUES = 16_000_000  # units times characters; units above this number are left out
SCRIPTS = (
    "guesses.js",
    "colour.js",
    "pair.js",
    "stretch.js",
    "network.js",
    "words.js",
    "found.js",
    "attention.js",
    "bits.js",
    "main.js",
)


def is_report(path: Path) -> bool:
    """Whether a file is a page that `write_report` wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    return b"Content-Security-Policy" in head and b": inspection report</title>" in head


def write_report(path: Path, survey: Survey, about: dict[str, Any], overwrite: bool) -> int:
    """Write the page of a survey to `path`.

    A regular file is replaced at once when the page is complete. A link stays a link.

    Args:
        about: the model and the text, from `charlm inspect`.

    Returns:
        The number of bytes written.

    Raises:
        CharlmError: the file cannot be written, or it exists and `overwrite` is False.
    """
    return write_output(path, build_page(survey, about).encode(), "report", overwrite)


def build_page(survey: Survey, about: dict[str, Any]) -> str:
    """The HTML of the page."""
    unit_arrays, units = _units(survey)
    attention_arrays, attention = _attention(survey.attention)
    about = {key: visible(it) if isinstance(it, str) else it for key, it in about.items()}
    data = survey.numbers() | {"about": about, "units": units, "attention": attention}
    return build(
        title=f"{about['name']}: inspection report",
        style=read_parts(PARTS, "style.css"),
        script=read_parts(PARTS, *SHARED) + read_parts("insight/page", *SCRIPTS),
        data=data,
        arrays=_characters(survey) | unit_arrays | attention_arrays,
    )


# --- arrays ----------------------------------------------------------------------------------


def _characters(survey: Survey) -> dict[str, Array]:
    """The arrays with values for each character."""
    activations = survey.activations
    return {
        "ids": activations.ids.astype("<u4"),
        "bits": np.nan_to_num(survey.bits, nan=-1.0).astype("<f4"),
        "guesses": activations.guesses.astype("<u4"),
        "probabilities": (activations.probabilities * 65535).round().astype("<u2"),
        "rises": np.stack(
            [np.nan_to_num(each.ablation.rise) for each in survey.ablations]
            or [np.zeros(0, np.float32)]
        ).astype("<f4"),
    }


def _units(survey: Survey) -> tuple[dict[str, Array], dict[str, Any]]:
    """The values of the units (units, N) as small integers, with the most levels that fit into
    MAX_BYTES; and their description.

    The description has the kinds of units. For each row it has the kind, layer and index, the value
    of the highest level (`scales`), and a smaller value that gets the full colour (`shown`), so
    that outliers do not make the rest pale.
    """
    units, chosen = survey.activations.units, _chosen(survey)
    rows, scales, shown = [], [], []
    for kind, layer, index in chosen:
        values = units[kind][layer, :, index].astype(np.float32)
        sizes = np.abs(values)
        scales.append(float(sizes.max()) or 1.0)
        shown.append(float(np.quantile(sizes, 0.98)) or scales[-1])
        rows.append(values / scales[-1])
    values = np.stack(rows)  # (units, N)
    levels = next((n for n in LEVELS if _size(values, n) <= MAX_BYTES), LEVELS[-1])
    description = {
        "kinds": [{"kind": k, "layers": u.shape[0], "size": u.shape[2]} for k, u in units.items()],
        "rows": chosen,
        "scales": scales,
        "shown": shown,
        "levels": levels,
    }
    return {"units": np.round(values * levels).astype(np.int8)}, description


def _chosen(survey: Survey) -> list[tuple[str, int, int]]:
    """The units on the page, by kind, layer and index: all of them, or the first MAX_VALUES / N.
    Those that the search found come first, then those with the lowest index."""
    every = [
        (kind, layer, index)
        for kind, values in survey.activations.units.items()
        for layer in range(values.shape[0])
        for index in range(values.shape[2])
    ]
    found = [(unit.kind, unit.layer, unit.index) for each in survey.found for unit in each.units]
    ranked = dict.fromkeys([*found, *sorted(every, key=lambda unit: unit[2])])
    chosen = set(list(ranked)[: max(1, MAX_VALUES // len(survey.text))])
    return [unit for unit in every if unit in chosen]


def _size(values: Array, levels: int) -> int:
    """The approximate compressed size of all units in bytes, from every eighth."""
    some = values[::8]
    packed = len(zlib.compress(np.round(some * levels).astype(np.int8).tobytes(), 1))
    return packed * len(values) // len(some)


def _attention(window: AttentionWindow | None) -> tuple[dict[str, Array], dict[str, Any] | None]:
    """The arrays of an attention window, and its sizes and scales.

    Attention weights are stored as their square root, which keeps small weights above 0. Queries,
    keys and values are stored as 16-bit integers.
    """
    if window is None:
        return {}, None
    arrays = {"attention": (255 * np.sqrt(window.attention)).round().astype(np.uint8)}
    scales = {}
    for name in ("queries", "keys", "values"):
        values = getattr(window, name).astype(np.float64)  # a scale may be below float32's range
        scales[name] = float(np.abs(values).max()) / 32767 or 1.0
        arrays[name] = (values / scales[name]).round().astype("<i2")
    L, H, T, K = window.queries.shape
    sizes = {"layers": L, "heads": H, "length": T, "width": K}
    return arrays, sizes | {"scales": scales}
