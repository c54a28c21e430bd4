"""The speed of training on this machine, by the size of the model. Measured once, and kept."""

from __future__ import annotations

import functools

from charlm.config import (
    GPTConfig,
    ModelConfig,
    MuonConfig,
    RecurrentConfig,
    SGDConfig,
    TrainConfig,
)
from charlm.config.suggest import Speed
from charlm.models import CharModel, build_model
from charlm.training import trial
from charlm.training.choose import choose_compute
from charlm.training.compute import Compute
from charlm.training.measured import measured

WIDTHS = {"gpt": (64, 256)}  # that are measured
_WIDTHS = (128, 512)
_VOCAB_SIZE, _CONTEXT, _SEQ_LEN, _BATCH_CHARS = 100, 128, 64, 2048


def measure_speed(kind: str, train: TrainConfig, device: str) -> Speed:
    """Measure how fast models of a kind are trained.

    Two widths D are measured, from which the others follow: elementwise functions take a time in
    proportion to D, products to D**2, and Muon to D**3.

    Args:
        kind: lstm, gru or rnn with one layer, or gpt with 4 layers.
        train: its kernels, precision, threads and optimizer are used.
        device: auto or the name of a device.

    Raises:
        DeviceError: the device is not available.
    """
    used = {"optimizer", "precision", "kernels", "threads", "verify"}
    settings = train.model_dump(include=used, mode="json")
    low, high = WIDTHS.get(kind, _WIDTHS)
    prepared = functools.cache(lambda width: _prepared(kind, width, train, device))

    def seconds(name: str) -> float:
        what, width = name.split()
        return (
            _step_seconds(*prepared(int(width)))
            if what == "step"
            else (_seconds_per_char(*prepared(int(width))))
        )

    names = [f"char {low}", f"char {high}", f"step {high}"]
    found = measured(f"speed {kind} {settings} {device}", names, seconds, rounds=1)
    low_s, high_s = found[f"char {low}"] / low, found[f"char {high}"] / high
    slope = max(0.0, (high_s - low_s) / (high - low))
    per_width = max(0.0, high_s - slope * high)  # on a busy machine, times can be far off
    return Speed(per_width, (high_s - per_width) / high, found[f"step {high}"] / high**3)


def _prepared(
    kind: str, width: int, train: TrainConfig, device: str
) -> tuple[CharModel, TrainConfig, Compute]:
    """A model of this width, settings for a step, and how to compute it."""
    config: ModelConfig
    if kind == "gpt":
        length = _CONTEXT
        config = GPTConfig(n_layer=4, n_head=width // 32, n_embd=width, context=length)
    else:
        length = _SEQ_LEN
        raw = {"kind": kind, "n_layer": 1, "hidden_size": width}
        config = RecurrentConfig.model_validate(raw)
    sizes = {"batch_size": _BATCH_CHARS // length, "seq_len": length, "grad_accum": 1}
    train = train.model_copy(update=sizes)
    model = build_model(config, _VOCAB_SIZE, seed=0)
    compute = choose_compute(train, model, device)
    return model.to(compute.device), train, compute


def _seconds_per_char(model: CharModel, train: TrainConfig, compute: Compute) -> float:
    """The time of the layers."""
    x, y = trial.random_batch(train, model)
    layers = train.model_copy(update={"optimizer": SGDConfig()})
    return trial.step_seconds(model, layers, compute, x, y) / x.numel()


def _step_seconds(model: CharModel, train: TrainConfig, compute: Compute) -> float:
    """The time of Muon. Other optimizers take none that counts."""
    if not isinstance(train.optimizer, MuonConfig):
        return 1e-9
    return trial.muon_step_seconds(model, compute.fused_muon, compute.muon)
