"""What cannot fit into the memory is refused before anything is allocated."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from charlm.config import GPTConfig, MLPConfig, ModelConfig, RecurrentConfig, TrainConfig
from charlm.config.files import parse_config
from charlm.config.shapes import count_weights
from charlm.errors import ConfigError
from charlm.kernels.gpt import FusedGPT
from charlm.kernels.variants import Variant
from charlm.machine import usable_memory
from charlm.models import CharModel, build_model
from charlm.training.memory import bytes_at_least, refuse_too_large
from tests.conftest import python
from tests.kernels import VARIANTS, load
from tests.models import model_config

V, T = 10, 32
MEMORY = usable_memory() or 0
known_memory = pytest.mark.skipif(not MEMORY, reason="the memory of this machine is not reported")


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "lstm", "hidden_size": 65_536, "n_layer": 1000},
        {"kind": "rnn", "hidden_size": 100_000, "n_layer": 1000},
        {"kind": "gpt", "n_embd": 65_536, "n_head": 64, "n_layer": 1000},
    ],
)
@known_memory
def test_a_model_that_is_larger_than_the_memory_is_not_built(raw: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^out of memory: a model .* GB are available") as caught:
        build_model(model_config(raw), V, 0)
    assert f"and {MEMORY / 1e9:.1f} GB are available" in str(caught.value)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam", "adamw", "muon"])
def test_training_needs_memory_for_weights_gradients_and_states(optimizer: str) -> None:
    raw = {"name": "a", "data": {"path": "a"}, "train": {"optimizer": {"kind": optimizer}}}
    train, model = parse_config(raw).train, RecurrentConfig()
    states = {"sgd": 0, "adam": 2, "adamw": 2}.get(optimizer, 1)
    assert bytes_at_least(train, model, None) == (8 + 4 * states) * count_weights(model, 1)


def test_a_batch_needs_memory_for_its_part_that_is_processed_at_once() -> None:
    def outputs(model: ModelConfig, batch_size: int, **train: int) -> int:
        once, twice = (TrainConfig(batch_size=n * batch_size, **train) for n in (1, 2))
        return bytes_at_least(twice, model, V) - bytes_at_least(once, model, V)

    small, gpt = RecurrentConfig(hidden_size=6, n_layer=5), GPTConfig(n_embd=8, n_layer=3, n_head=1)
    assert outputs(small, batch_size=12, seq_len=7) == 2 * 12 * 7 * (5 * 6 + V)
    assert outputs(small, batch_size=12, seq_len=7, grad_accum=4) == 2 * 3 * 7 * (5 * 6 + V)
    mlp = MLPConfig(hidden_size=9, n_layer=2, n_embd=3, context=4)
    assert outputs(mlp, batch_size=12, seq_len=7) == 2 * 12 * 7 * (4 * 3 + 2 * 9 + V)
    kept = 4 * 8 + 4 * 8 + 2 * 32  # two of 8 in float32; 4 of the heads; 2 of the MLP's 32 units
    assert outputs(gpt, batch_size=12, seq_len=7) == 2 * 12 * 7 * (3 * kept + V)


def kept_bytes(forward: Any, model: CharModel, batch_size: int) -> int:
    """The bytes that a forward pass keeps for the backward pass, without those of the weights."""
    kept: dict[int, int] = {it.untyped_storage().data_ptr(): 0 for it in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    ids = torch.zeros(batch_size, T, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda it: it):
        logits, _ = forward(ids, None)
    assert logits.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("mlp", ["gelu", "relu2", "swiglu"])
@pytest.mark.parametrize("variant", [None, *VARIANTS], ids=lambda it: it.name if it else "torch")
def test_a_gpt_keeps_what_is_counted_or_more(
    variant: Variant | None, mlp: Literal["gelu", "relu2", "swiglu"]
) -> None:
    config = GPTConfig(n_layer=3, n_embd=128, n_head=2, context=T, mlp=mlp)
    model = build_model(config, V, 0)

    def counted(batch_size: int) -> int:
        return bytes_at_least(TrainConfig(batch_size=batch_size, seq_len=T), config, V)

    def kept(batch_size: int) -> int:
        forward = load(lambda it: FusedGPT(model, it), variant) if variant else model
        return kept_bytes(forward, model, batch_size)

    ratio = (kept(16) - kept(8)) / (counted(16) - counted(8))
    most = 1.2 if variant and variant.half else 2.2 if variant else 4
    assert 1 <= ratio <= most


VAST = TrainConfig(batch_size=10**7, seq_len=10**6), RecurrentConfig(hidden_size=99_999, n_layer=99)


@known_memory
def test_the_message_tells_what_would_help() -> None:
    train, model = VAST
    refuse_too_large(train, RecurrentConfig())  # the weights alone fit
    with pytest.raises(ConfigError, match=r"^out of memory: .*or raise train\.grad_accum"):
        refuse_too_large(train, RecurrentConfig(), V)
    with pytest.raises(ConfigError, match=r"^out of memory: .*; use a smaller model$"):
        refuse_too_large(train, model)


def test_nothing_is_refused_if_the_memory_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.models.usable_memory", lambda: None)
    refuse_too_large(*VAST, V)


LIMITED = """
import resource, sys
limit = 12 * 10**9  # of addresses; importing torch takes several GB of them
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from charlm.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
@pytest.mark.parametrize(
    "overrides",
    [
        ["model.hidden_size=13000"],  # 5.4 GB of weights, and as much again twice
        ["model.kind=gpt", "model.n_embd=16384", "model.n_layer=3", "model.context=64"],
        ["train.batch_size=6000000", "train.seq_len=2", "model.hidden_size=300", "model.n_layer=2"],
    ],
)
def test_a_run_beyond_the_limit_of_the_process_is_one_line(
    tmp_path: Path, overrides: list[str]
) -> None:
    text = tmp_path / "a.txt"
    text.write_text("the quick brown fox\n" * 700_000, encoding="utf-8")
    settings = [argument for override in overrides for argument in ("--set", override)]
    arguments: tuple[str | Path, ...] = (
        "--data",
        text,
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
        *settings,
    )
    ended = python("-c", LIMITED, "train", *arguments)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("charlm: out of memory")
    assert not (tmp_path / "out").exists()
