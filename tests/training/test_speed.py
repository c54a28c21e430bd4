"""The measured speed of training."""

from __future__ import annotations

import math

import pytest

from charlm.config import MuonConfig, SGDConfig, TrainConfig
from charlm.training import speed as module
from charlm.training import speed_trial
from charlm.training.speed import measure_speed

SIMPLE = {"kernels": "off", "precision": "fp32", "threads": 1, "verify": False}


def settings(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate({**SIMPLE, "optimizer": {"kind": "muon"}, **changes})


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_it_gives_the_times_that_were_measured(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = module.WIDTHS.get(kind, (128, 512))
    times = {f"char {low}": 1e-5, f"char {high}": 9e-5, f"step {high}": 0.02}
    monkeypatch.setattr(module, "measured", lambda *_, **__: times)
    speed = measure_speed(kind, settings(), "cpu")
    chars = 4096
    for width in (low, high):
        step_s = chars * times[f"char {width}"] + 0.02 * (width / high) ** 3
        assert speed.chars(width, 3.0, chars) == pytest.approx(3.0 / step_s * chars)


@pytest.mark.parametrize("low_s", [9e-5, 1e-5, 1e-9])  # at first, the smaller one is slower
def test_times_that_noise_has_disturbed_still_give_a_speed(
    low_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"char 128": low_s, "char 512": 1e-5, "step 512": 0.02}
    monkeypatch.setattr(module, "measured", lambda *_, **__: times)
    speed = measure_speed("lstm", settings(), "cpu")
    assert speed.chars(512, 1.0, 10**9) == pytest.approx(1e5, rel=0.01)
    assert 0 < speed.chars(2048, 1.0, 2048) < speed.chars(1024, 1.0, 2048) < 1e5


@pytest.mark.parametrize("kind", ["rnn", "mlp", "gpt"])
def test_it_is_measured_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure_speed(kind, settings(), "cpu")
    assert all(math.isfinite(it) and it >= 0 for it in (first.per_width, first.per_weight))
    assert 0 < first.chars(64, 1.0, 2048) < 1e9
    monkeypatch.setattr(speed_trial, "choose_compute", None)  # would fail if it was called
    assert measure_speed(kind, settings(), "cpu") == first
    with pytest.raises(TypeError):
        measure_speed(kind, settings(threads=2), "cpu")


def test_only_muon_takes_time_beside_the_layers() -> None:
    speeds = [
        measure_speed("rnn", settings(optimizer=it.model_dump()), "cpu")
        for it in (MuonConfig(), SGDConfig())
    ]
    assert speeds[0].per_step > 1000 * speeds[1].per_step
