"""Builds the page that writes with a model."""

from __future__ import annotations

from importlib import resources
from pathlib import PurePath
from typing import Any

import numpy as np

from charlm.checkpoint.format import Meta
from charlm.checkpoint.read import Checkpoint
from charlm.config import GPTConfig
from charlm.config.describe import describe_model
from charlm.config.shapes import unit_sizes
from charlm.errors import CharlmError
from charlm.page.document import PARTS, SHARED, build, read_parts
from charlm.playground.weights import check_size, pack, unpack
from charlm.sampling.generate import beginning
from charlm.visible import visible

FOLDER = "playground/page"  # of the package
SCRIPTS = ("takes.js", "roads.js", "watch.js", "settings.js", "play.js")
WORKER = ("math.js", "wasm.js", "recurrent.js", "mlp.js", "gpt.js", "draw.js", "worker.js")
GATES = {"gru": ("reset", "update"), "lstm": ("input", "forget", "output")}


def build_page(checkpoint: Checkpoint, how: str) -> tuple[str, dict[str, Any]]:
    """The HTML of the page of a model.

    Args:
        how: the format of the weights, one of charlm.units.WEIGHT_BYTES.

    Returns:
        The page, and its description of the weights: their format and the measured loss.

    Raises:
        CharlmError: the model is too large, or its weights are not finite.
    """
    check_size(checkpoint, how)
    weights = checkpoint.weights()
    if not all(np.isfinite(weight).all() for weight in weights.values()):
        raise CharlmError(
            f"{checkpoint.path}: the weights are broken: not all are finite; use another checkpoint"
        )
    arrays = pack(weights, how)
    about = {"format": how, "names": list(arrays)} | _losses(checkpoint, arrays, how)
    page = build(
        title=f"{visible(checkpoint.meta.config.name)}: playground",
        style=read_parts(PARTS, "style.css") + read_parts(FOLDER, "play.css"),
        script=read_parts(PARTS, *SHARED) + read_parts(FOLDER, *SCRIPTS),
        data=_describe(checkpoint.meta) | {"weights": about},
        arrays=arrays,
        worker=read_parts(FOLDER, *WORKER),
        wasm=(resources.files("charlm") / FOLDER / "affine.wasm").read_bytes(),
    )
    return page, about


def _losses(checkpoint: Checkpoint, arrays: dict[str, Any], how: str) -> dict[str, Any]:
    if how == "fp32":
        return {"losses": None, "reason": "the weights are not rounded"}
    from charlm.playground.measure import measure_losses

    measured = measure_losses(checkpoint, unpack(arrays))
    if isinstance(measured, str):
        return {"losses": None, "reason": f"not measured: {measured}"}
    exact, rounded, chars = measured
    losses = {"exact": exact, "rounded": rounded, "cost": rounded - exact, "chars": chars}
    return {"losses": losses, "reason": ""}


def _describe(meta: Meta) -> dict[str, Any]:
    """What the page knows of a model, without its weights."""
    config, vocab = meta.config, meta.vocabulary
    return {
        "about": {
            "name": visible(config.name),
            "model": describe_model(config.model),
            "parameters": meta.parameters,
            "step": meta.progress.step,
            # the names of files alone: the folders of its author are nobody's business
            "source": visible(", ".join(PurePath(path).name for path in config.data.path)),
            "unit": vocab.unit,
            "limited": vocab.limited,
            "vocab": [*map(ord, meta.vocab)],
            "beginning": int(beginning(vocab, vocab.encode(""))[0]),
        },
        "config": config.model.model_dump(),
        "units": {"kinds": _kinds(meta)},
        "sample": {
            "prompt": config.sample.prompt,
            "temperature": config.sample.temperature,
            "topK": config.sample.top_k,
            "topP": config.sample.top_p,
            "minP": config.sample.min_p,
            "penalty": config.sample.repetition_penalty,
        },
    }


def _kinds(meta: Meta) -> list[dict[str, Any]]:
    """The kinds of values that can colour the text: units, gates, and the heads of a GPT."""
    model = meta.config.model
    sizes = {"attention": model.n_head} if isinstance(model, GPTConfig) else {}
    sizes |= unit_sizes(model) | dict.fromkeys(GATES.get(model.kind, ()), model.width)
    return [{"kind": kind, "layers": model.n_layer, "size": size} for kind, size in sizes.items()]
