"""What differs between runs. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from charlm.checkpoint.format import Meta
from charlm.checkpoint.runs import Summary
from charlm.config.compare import varying

# what was computed, and how: fields of `Meta`
_COMPUTED = ("device", "precision", "threads", "kernel", "muon_kernel", "muon")
# settings of a text that do not change which characters are evaluated, if the text is the same
_SAME_TEXT = ("path", "val_path", "test_path", "include", "exclude", "separator")
_SCORING = ("eval.protocol", "eval.max_chars")
_WINDOWS = ("eval.window", "eval.n_windows")


@dataclass(frozen=True)
class Comparison:
    """What differs between R runs.

    Attributes:
        runs: the R runs.
        settings: by their dotted names, the R values of each setting that differs; None for a run
            without this setting.
        computed: the same for the device, the precision, the kernels and the versions.
        incomparable: why the validation losses cannot be compared; empty if they can.
    """

    runs: list[Summary]
    settings: dict[str, list[Any]]
    computed: dict[str, list[Any]]
    incomparable: list[str]


def compare_runs(runs: Sequence[tuple[Summary, Meta]]) -> Comparison:
    """Compare runs by their settings and by what their checkpoints recorded."""
    metas = [meta for _, meta in runs]
    settings = varying([meta.config for meta in metas])
    settings.pop("name", None)
    computed = {key: [getattr(meta, key) for meta in metas] for key in _COMPUTED}
    for key in dict.fromkeys(key for meta in metas for key in meta.versions):
        computed[f"{key} version"] = [meta.versions.get(key) for meta in metas]
    return Comparison(
        [run for run, _ in runs],
        settings,
        {key: values for key, values in computed.items() if _differ(values)},
        _incomparable(metas, settings),
    )


def _incomparable(metas: Sequence[Meta], settings: dict[str, list[Any]]) -> list[str]:
    reasons = ["the texts differ"] * _differ([meta.corpus.sha256 for meta in metas])
    scored = [_scored(meta) for meta in metas]
    if _differ(scored):
        sizes = " and ".join("all" if n is None else f"{n:,}" for n in dict.fromkeys(scored))
        reasons.append(f"{sizes} characters of the validation part were scored: use charlm eval")
    reasons += ["the vocabularies differ"] * _differ([len(meta.vocab) for meta in metas])
    windows = any(meta.config.eval.protocol == "windows" for meta in metas)
    of_text = {f"data.{key}" for key in type(metas[0].config.data).model_fields} - {
        f"data.{key}" for key in _SAME_TEXT
    }
    counted = {*of_text, *_SCORING, *(_WINDOWS if windows else ())}
    return reasons + [f"{key} differs" for key in settings if key in counted]


def _scored(meta: Meta) -> int | None:
    """The number of characters of the validation part that were scored, if it was chosen; None for
    all of them."""
    chars, data = meta.progress.eval_chars, meta.config.data
    is_all = data.val_path is None and chars and chars >= data.val_fraction * meta.corpus.chars
    return None if is_all else chars


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)
