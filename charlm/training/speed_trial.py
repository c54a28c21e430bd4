"""A trial of how fast a model of a width is trained."""

from __future__ import annotations

from charlm.config import MuonConfig, SGDConfig, TrainConfig
from charlm.config.suggest import KINDS, model_of
from charlm.models import build_model
from charlm.training import trial
from charlm.training.choose import choose_compute

_VOCAB_SIZE, _BATCH_CHARS = 100, 2048


class SpeedTrial:
    """Measures how fast this machine trains a model of one kind and width.

    Args:
        kind, width: of the model; see `measure_speed`.
        train: its kernels, precision, threads and optimizer are used.
        device: auto or the name of a device.

    Raises:
        DeviceError: the device is not available.
    """

    def __init__(self, kind: str, width: int, train: TrainConfig, device: str) -> None:
        length = KINDS[kind].seq_len
        sizes = {"batch_size": _BATCH_CHARS // length, "seq_len": length, "grad_accum": 1}
        self._train = train.model_copy(update=sizes)
        model = build_model(model_of(kind, width), _VOCAB_SIZE, seed=0)
        self._compute = choose_compute(self._train, model, device)
        self._model = model.to(self._compute.device)

    def seconds(self, what: str) -> float:
        """The time of the layers for a `char`, or of the optimizer for a `step`."""
        return self._optimizer() if what == "step" else self._layers()

    def _layers(self) -> float:
        x, y = trial.random_batch(self._train, self._model)
        train = self._train.model_copy(update={"optimizer": SGDConfig()})
        return trial.step_seconds(self._model, train, self._compute, x, y) / x.numel()

    def _optimizer(self) -> float:
        """The time of a step of Muon. The time of other optimizers is too short to count."""
        if not isinstance(self._train.optimizer, MuonConfig):
            return 1e-9
        compute = self._compute
        return trial.muon_step_seconds(self._model, compute.fused_muon, compute.muon)
