"""TensorBoard's files of a run folder."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
from tensorboard.summary.writer import record_writer  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

BINS_END = 1e20  # of the bins of a histogram in torch.utils.tensorboard


class EventWriter(SummaryWriter):
    """A SummaryWriter that writes without a thread.

    Its methods return when the event is in the file, or raise the error of writing it. In
    SummaryWriter a thread writes the events: an error is raised by a later call or by none, and the
    thread prints a traceback.

    Args:
        folder: TensorBoard's run; created if it is missing.
        purge_step: TensorBoard drops the events of older files from this step on.

    Raises:
        OSError: the folder or the file cannot be written, now or by a method that adds events.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        second, ns = divmod(time.time_ns(), 10**9)
        host = socket.gethostname()
        # TensorBoard reads the files of a run in the order of their names
        name = f"events.out.tfevents.{second:010}.{host}.{os.getpid()}.{ns:09}"
        self._file = (folder / name).open("xb")
        self._records = record_writer.RecordWriter(self._file)
        self._write(event_pb2.Event(file_version="brain.Event:2"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=purge_step, session_log=start))
        super().__init__(str(folder))

    def add_summary(
        self, summary: Any, global_step: int = 0, _walltime: float | None = None
    ) -> None:
        """Write an event; the methods of SummaryWriter call this one."""
        self._write(event_pb2.Event(summary=summary, step=global_step))

    def add_histogram(  # type: ignore[override]
        self, tag: str, values: NDArray[np.floating[Any]], step: int
    ) -> None:
        """Write the histogram of the numbers that TensorBoard's bins can count, if there are any.

        A network that is broken can have others: NaN, or numbers of `BINS_END` and above.
        """
        counted = values[np.abs(values) < BINS_END]
        if counted.size:
            super().add_histogram(tag, counted, step)

    def add_png(self, tag: str, png: bytes, step: int) -> None:
        """Write a picture."""
        image = summary_pb2.Summary.Image(encoded_image_string=png)
        value = summary_pb2.Summary.Value(tag=tag, image=image)
        self.add_summary(summary_pb2.Summary(value=[value]), step)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _get_file_writer(self) -> EventWriter:
        """What SummaryWriter's methods write to."""
        return self

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        try:
            self._records.write(event.SerializeToString())
            self._file.flush()
        except OSError:
            with suppress(OSError):  # otherwise Python tries again to write the rest, at the end
                self._file.close()
            raise
