"""The speed of training on this machine, by the size of the model. Measured once, and kept.

Needs torch only to measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from charlm.config import TrainConfig
from charlm.config.suggest import Speed
from charlm.training.measured import measured

if TYPE_CHECKING:
    from charlm.training.speed_trial import SpeedTrial

WIDTHS = {"gpt": (64, 256)}  # that are measured
_WIDTHS = (128, 512)


def measure_speed(kind: str, train: TrainConfig, device: str) -> Speed:
    """Measure how fast models of a kind are trained.

    Two widths D are measured, from which the others follow: elementwise functions take a time in
    proportion to D, products to D**2, and Muon to D**3.

    Args:
        kind: one of `suggest.KINDS`, with its number of layers.
        train: its kernels, precision, threads and optimizer are used.
        device: auto or the name of a device.

    Raises:
        DeviceError: the device is not available.
    """
    low, high = WIDTHS.get(kind, _WIDTHS)
    trials: dict[str, SpeedTrial] = {}

    def seconds(name: str) -> float:
        from charlm.training.speed_trial import SpeedTrial

        what, width = name.split()
        if width not in trials:
            trials[width] = SpeedTrial(kind, int(width), train, device)
        return trials[width].seconds(what)

    used = {"optimizer", "precision", "kernels", "threads", "verify"}
    settings = train.model_dump(include=used, mode="json")
    names = [f"char {low}", f"char {high}", f"step {high}"]
    found = measured(f"speed {kind} {settings} {device}", names, seconds, rounds=1)
    low_s, high_s = found[f"char {low}"] / low, found[f"char {high}"] / high
    slope = max(0.0, (high_s - low_s) / (high - low))
    per_width = max(0.0, high_s - slope * high)  # on a busy machine, times can be far off
    return Speed(per_width, (high_s - per_width) / high, found[f"step {high}"] / high**3)
