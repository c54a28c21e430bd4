"""A look inside at every evaluation of a run, into TensorBoard: units, gates and attention.

It draws nothing from any generator and leaves the model as it is, so a run that is watched has the
same weights as one that is not. It passes an evaluation over where it would have taken more than
SHARE of the training time so far.
"""

from __future__ import annotations

import time
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
    from torch.utils.tensorboard import SummaryWriter

CHARS = 128  # of the validation split, looked at each time
SHARE = 0.01


class Watch(Observer):
    """Writes what it sees to tb/insight in a run folder.

    Args:
        ids: the validation split.
    """

    def __init__(self, folder: Path, ids: TextIds, model: CharModel) -> None:
        self._folder, self._model = folder / "tb" / "insight", model
        self._ids = ids[: min(CHARS, model.context or CHARS)]  # (T,)
        self._tb: SummaryWriter | None = None
        self._spent = self._last = 0.0  # seconds: in all, and the last time

    def record(self, record: Record) -> None:
        if record.split != "val" or self._spent + self._last > SHARE * record.elapsed_s:
            return
        started = time.monotonic()
        with writing(self._folder):
            self._show(self._writer(record.step), record.step)
        self._last = time.monotonic() - started
        self._spent += self._last

    def _writer(self, step: int) -> SummaryWriter:
        """Opened when first needed; after a resume it hides what was written from here on."""
        if self._tb is None:
            from torch.utils.tensorboard import SummaryWriter

            purge = step if self._folder.exists() else None
            self._tb = SummaryWriter(self._folder, purge_step=purge)
        return self._tb

    def _show(self, tb: SummaryWriter, step: int) -> None:
        device = next(self._model.parameters()).device
        ids = torch.from_numpy(self._ids.astype(np.int64))[None].to(device)
        told, _ = trace(self._model, ids, with_attention=True)
        for kind, units in told.units.items():
            for layer, values in enumerate(units.float().cpu().numpy()):
                tb.add_histogram(f"units/{kind}/layer {layer + 1}", values, step)
        self._show_gates(tb, told, step)
        if told.attention is not None:
            tb.add_image("attention", _mosaic(told.attention[:, 0].float().cpu().numpy()), step)
        tb.flush()

    def _show_gates(self, tb: SummaryWriter, told: Trace, step: int) -> None:
        gates = {name: gate[:, 0].float().cpu().numpy() for name, gate in told.gates.items()}
        for use in gate_use(gates):
            for layer, values in enumerate(gates[use.name]):
                where = f"{use.name}/layer {layer + 1}"
                tb.add_histogram(f"gates/{where}", values, step)
                tb.add_scalar(f"left-saturated/{where}", use.left[layer].mean(), step)
                tb.add_scalar(f"right-saturated/{where}", use.right[layer].mean(), step)

    def close(self) -> None:
        if self._tb is not None:
            with suppress(OSError):  # a full disk has been told of already
                self._tb.close()


def _mosaic(attention: Array) -> Array:
    """One picture (1, L * (T+2), H * (T+2)), a row for each layer, a column for each head: shares
    by their square root, white for all of the attention."""
    cells = np.pad(np.sqrt(attention), ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.3)
    L, H, height, width = cells.shape
    picture = cells.transpose(0, 2, 1, 3).reshape(L * height, H * width)
    return (255 * picture[None]).astype(np.uint8)
