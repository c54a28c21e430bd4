"""Fixtures of the tests of exported models: checkpoints with any network and any vocabulary."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.config import Config
from charlm.models import build_model
from tests.conftest import TinyConfig, TinyRun

Made = Callable[..., Path]

NETWORKS: dict[str, dict[str, Any]] = {
    "rnn": {"kind": "rnn"},
    "gru": {"kind": "gru", "n_layer": 2, "tie_weights": True},
    "lstm": {"kind": "lstm", "n_layer": 2, "input": "one_hot"},
    "mlp": {"kind": "mlp", "n_layer": 2},
    "mlp-one-hot": {"kind": "mlp", "input": "one_hot", "activation": "tanh", "context": 3},
    "default": {"kind": "gpt"},  # rope, rmsnorm, relu2, qk_norm
    "biases": {"kind": "gpt", "bias": True, "mlp": "swiglu", "tie_weights": True},
    "sinusoidal": {"kind": "gpt", "position": "sinusoidal", "norm": "layernorm"},
    "gpt2": {"kind": "gpt", "position": "learned", "norm": "layernorm", "mlp": "gelu"}
    | {"qk_norm": False, "bias": True, "tie_weights": True},
    "gpt2-plain": {"kind": "gpt", "position": "learned", "norm": "layernorm", "mlp": "gelu"}
    | {"qk_norm": False},
    "llama": {"kind": "gpt", "mlp": "swiglu", "qk_norm": False},
    "llama-biases": {"kind": "gpt", "mlp": "swiglu", "qk_norm": False, "bias": True}
    | {"tie_weights": True},
}
SMALL = ("embed.weight", "position.table")
GPT = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context": 24}


@pytest.fixture(scope="session")
def made(
    tiny_run: TinyRun, tiny_config: TinyConfig, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """Make a checkpoint with large random weights, by the name of a network and settings of data.

    Small weights would hide mistakes: their activations are nearly linear.
    """
    out = tmp_path_factory.mktemp("made")

    @functools.cache
    def make(name: str, vocab: str | None = None, broken: bool = False, **data: Any) -> Path:
        meta = read_meta(tiny_run("lstm") / LAST)
        network = NETWORKS[name]
        raw = tiny_config("lstm")
        raw["model"] = (GPT if network["kind"] == "gpt" else {"hidden_size": 16}) | network
        raw["data"] |= data
        if network["kind"] == "gpt":
            del raw["train"]["seq_len"]
        config = Config.model_validate(raw)
        changed = meta.model_copy(update={"config": config, "vocab": vocab or meta.vocab})
        model = build_model(config.model, len(changed.vocab), seed=0)
        generator = torch.Generator().manual_seed(1)
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if network["kind"] == "gpt" and key in SMALL and not network.get("tie_weights"):
                parameter.data = noise * 0.002  # the first norm divides by little more than eps
            else:
                parameter.data = noise * 0.5 if parameter.ndim > 1 else parameter.data + noise * 0.3
        if broken:
            next(model.parameters()).data[0, 0] = torch.nan
        path = out / f"{name}-{len(list(out.iterdir()))}.safetensors"
        weights = {f"model.{key}": it.detach() for key, it in model.named_parameters()}
        text = json.dumps(changed.model_dump(mode="json"))
        save_file(weights, path, {"charlm": text})
        return path

    return make
