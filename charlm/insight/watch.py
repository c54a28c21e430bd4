"""Writes units, gates and attention to TensorBoard at the evaluations of a run.

It uses no random numbers and does not change the model, so a run has the same weights with it and
without it. It skips an evaluation if its total time would be more than SHARE of the training time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from charlm.checkpoint.write import writing
from charlm.data.corpus import TextIds
from charlm.insight.gates import gate_use
from charlm.insight.record import Array
from charlm.insight.trace import Trace, trace
from charlm.models import CharModel
from charlm.observer import Observer, Record

if TYPE_CHECKING:
    from charlm.checkpoint.events import EventWriter

CHARS = 128  # of the validation split, read each time
SHARE = 0.01  # of the training time


class Watch(Observer):
    """Writes to tb/insight in a run folder.

    Args:
        folder: the run folder.
        ids: the validation split.
        model: the model that is trained.
        clock: returns seconds, never fewer than before.
    """

    def __init__(
        self,
        folder: Path,
        ids: TextIds,
        model: CharModel,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._model, self._clock = folder / "tb" / "insight", model, clock
        self._ids = ids[: min(CHARS, model.context or CHARS)]  # (T,)
        self._tb: EventWriter | None = None
        self._total_s = self._last_s = 0.0  # the time of all calls, and of the last one

    def record(self, record: Record) -> None:
        if record.split != "val" or self._total_s + self._last_s > SHARE * record.elapsed_s:
            return
        started = self._clock()
        with writing(self._folder):
            self._write(self._writer(record.step), record.step)
        self._last_s = self._clock() - started
        self._total_s += self._last_s

    def _writer(self, step: int) -> EventWriter:
        """The TensorBoard writer, opened at the first use. In a resumed run TensorBoard then drops
        older events from this step on."""
        if self._tb is None:
            from charlm.checkpoint.events import EventWriter  # takes a second to import

            purge = step if self._folder.exists() else None
            self._tb = EventWriter(self._folder, purge)
        return self._tb

    def _write(self, tb: EventWriter, step: int) -> None:
        ids = torch.from_numpy(self._ids.astype(np.int64))[None].to(self._model.device)  # (1, T)
        traced, _ = trace(self._model, ids, with_attention=True)
        for kind, units in traced.units.items():
            for layer, values in enumerate(units.float().cpu().numpy()):
                tb.add_histogram(f"units/{kind}/layer {layer + 1}", values, step)
        self._write_gates(tb, traced, step)
        if traced.attention is not None:
            tb.add_image("attention", _mosaic(traced.attention[:, 0].float().cpu().numpy()), step)

    def _write_gates(self, tb: EventWriter, traced: Trace, step: int) -> None:
        gates = {name: gate[:, 0].float().cpu().numpy() for name, gate in traced.gates.items()}
        for use in gate_use(gates):
            for layer, values in enumerate(gates[use.name]):
                tag = f"{use.name}/layer {layer + 1}"
                tb.add_histogram(f"gates/{tag}", values, step)
                tb.add_scalar(f"left-saturated/{tag}", use.left[layer].mean(), step)
                tb.add_scalar(f"right-saturated/{tag}", use.right[layer].mean(), step)

    def close(self) -> None:
        if self._tb is not None:
            with suppress(OSError):  # a full disk was already reported
                self._tb.close()


def _mosaic(attention: Array) -> Array:
    """One image (1, L * (T+2), H * (T+2)) of attention (L, H, T, T): a row for each layer, a column
    for each head. Brightness is the square root of the weight; white is a weight of 1."""
    cells = np.pad(np.sqrt(attention), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.3)
    L, H, height, width = cells.shape
    image = cells.transpose(0, 2, 1, 3).reshape(L * height, H * width)
    return (255 * image[None]).astype(np.uint8)
