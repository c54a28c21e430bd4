"""Writes units, gates and attention to TensorBoard at the evaluations of a run.

It uses no random numbers and does not change the model, so a run has the same weights with it and
without it. It skips an evaluation if its total time would be more than SHARE of the training time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from charlm.checkpoint.write import writing
from charlm.data.corpus import TextIds
from charlm.insight.gates import gate_use
from charlm.insight.pictures import attention_pictures
from charlm.insight.trace import Trace, trace
from charlm.models import CharModel
from charlm.observer import Observer, Record

if TYPE_CHECKING:
    from charlm.checkpoint.events import EventWriter

CHARS = 128  # of the validation split, read each time
SHARE = 0.01  # of the training time


class Watch(Observer):
    """Writes to TensorBoard's file of a run.

    Args:
        writer: returns the writer of the file; called when the run has begun.
        ids: the validation split.
        model: the model that is trained.
        clock: returns seconds, never fewer than before.
    """

    def __init__(
        self,
        writer: Callable[[], EventWriter],
        ids: TextIds,
        model: CharModel,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer, self._model, self._clock = writer, model, clock
        self._ids = ids[: min(CHARS, model.context or CHARS)]  # (T,)
        self._total_s = self._last_s = 0.0  # the time of all calls, and of the last one

    def record(self, record: Record) -> None:
        if record.split != "val" or self._total_s + self._last_s > SHARE * record.elapsed_s:
            return
        started = self._clock()
        tb = self._writer()
        with writing(Path(tb.log_dir)):
            self._write(tb, record.step)
        self._last_s = self._clock() - started
        self._total_s += self._last_s

    def _write(self, tb: EventWriter, step: int) -> None:
        ids = torch.from_numpy(self._ids.astype(np.int64))[None].to(self._model.device)  # (1, T)
        traced, _ = trace(self._model, ids, with_attention=True)
        for kind, units in traced.units.items():
            for layer, values in enumerate(units.float().cpu().numpy()):
                tb.add_histogram(f"units/{kind}/layer {layer + 1}", values, step)
        self._write_gates(tb, traced, step)
        if traced.attention is not None:
            attention = traced.attention[:, 0].float().cpu().numpy()  # (L, H, T, T)
            for layer, png in enumerate(attention_pictures(attention)):
                tb.add_png(f"attention/layer {layer + 1}", png, step)

    def _write_gates(self, tb: EventWriter, traced: Trace, step: int) -> None:
        gates = {name: gate[:, 0].float().cpu().numpy() for name, gate in traced.gates.items()}
        for use in gate_use(gates):
            for layer, values in enumerate(gates[use.name]):
                tag = f"{use.name}/layer {layer + 1}"
                tb.add_histogram(f"gates/{tag}", values, step)
                tb.add_scalar(f"left-saturated/{tag}", use.left[layer].mean(), step)
                tb.add_scalar(f"right-saturated/{tag}", use.right[layer].mean(), step)
