"""What TensorBoard shows of a run: one entry in its list, with all curves, texts and pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import summary_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import (  # type: ignore[import-untyped]
    api_pb2,
    metadata,
    plugin_data_pb2,
    summary_v2,
)

from charlm.checkpoint.events import EventWriter
from charlm.checkpoint.format import Progress
from charlm.config import Config, GPTConfig
from charlm.config.files import to_yaml
from charlm.visible import SAMPLE, visible

SPLIT_TAGS = ("loss", "bits_per_char")  # measured on both splits
BEST_TAG = "loss/val_best"
# One chart for both splits. TensorBoard's other tabs have a chart for each tag.
CHARTS = {
    "loss": {
        "nats per character": ["Multiline", ["loss(/train|/val)?$"]],
        "bits per character": ["Multiline", ["bits_per_char(/train|/val)?$"]],
    }
}


class Board:
    """Writes the events of a run.

    The events of a run are in its folder, so its entry in TensorBoard's list has its name. Older
    versions of charlm wrote to the folders train, val and insight in tb/, which are three entries.
    A run that has them keeps them, because TensorBoard joins no curves of two entries.

    Args:
        folder: the run folder.
        progress: the run continues after it; TensorBoard drops what was written after it.

    Raises:
        OSError: a file cannot be written, now or by a method.
    """

    def __init__(self, folder: Path, config: Config, progress: Progress) -> None:
        self._best = math.inf if progress.best_loss is None else progress.best_loss
        tb, purge_step = folder / "tb", progress.step + 1
        self._splits: dict[str, EventWriter] = {}
        if (tb / "train").is_dir():
            self._splits = {
                old.name: EventWriter(old, purge_step) for old in tb.iterdir() if old.is_dir()
            }
            self.writer = self._splits["train"]
            return
        fresh = not any(folder.glob("events.out.tfevents.*"))
        # TensorBoard ignores the first purge step of a run, so the first session needs one too
        self.writer = EventWriter(folder, 0 if fresh else purge_step)
        if fresh:
            self.writer.add_text("config", _fenced("yaml", to_yaml(config).removesuffix("\n")), 0)
            self.writer.add_custom_scalars(CHARTS)
            for summary in _hparams(config):
                self.writer.add_summary(summary)

    @property
    def insight(self) -> EventWriter:
        """The writer for units, gates and attention."""
        return self._splits.get("insight", self.writer)

    def measured(self, split: str, step: int, scalars: Mapping[str, float | None]) -> None:
        """Write what was measured on a split, by its tag; None was not measured."""
        writer = self._splits.get(split, self.writer)
        for tag, value in scalars.items():
            if value is not None:
                parts = tag in SPLIT_TAGS and not self._splits
                writer.add_scalar(f"{tag}/{split}" if parts else tag, value, step)
        if split == "val" and not self._splits:
            self._best = min(self._best, scalars["loss"] or math.inf)
            writer.add_scalar(BEST_TAG, self._best, step)

    def sample(self, text: str, step: int) -> None:
        """Write a text that was sampled at a step."""
        self.writer.add_text("sample", _fenced("text", visible(text, SAMPLE)), step)

    def close(self) -> None:
        """Close the files."""
        for writer in {self.writer, *self._splits.values()}:
            with suppress(OSError):  # a full disk was reported before
                writer.close()


def _fenced(kind: str, text: str) -> str:
    """Markdown that shows a text as it is: the fence is longer than any run of its character."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{text}\n{fence}"


# --- the tab HPARAMS ----------------------------------------------------------------------------


_FIRST = ("model", "n_layer", "width", "optimizer", "lr")  # TensorBoard shows five at first
_WORDS = ("model", "optimizer", "text")


def _hparams(config: Config) -> list[Any]:
    """The summaries for TensorBoard's table of runs: its columns, and the settings of this run.

    TensorBoard takes the columns from any one of the runs, so all kinds of models have the same.
    """
    settings = _settings(config)
    infos = [
        api_pb2.HParamInfo(
            name=name,
            type=api_pb2.DATA_TYPE_STRING if name in _WORDS else api_pb2.DATA_TYPE_FLOAT64,
            differs=name in _FIRST,  # it sorts the columns by this, then by their names
        )
        for name in settings
    ]
    losses = {"loss/val": "val loss, last", BEST_TAG: "val loss, best"}
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=shown)
        for tag, shown in losses.items()
    ]
    columns = plugin_data_pb2.HParamsPluginData(
        experiment=api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    )
    value = summary_pb2.Summary.Value(
        tag=metadata.EXPERIMENT_TAG,
        metadata=metadata.create_summary_metadata(columns),
        tensor=metadata.NULL_TENSOR,
    )
    given = {name: value for name, value in settings.items() if value is not None}
    return [
        summary_pb2.Summary(value=[value]),
        summary_v2.hparams_pb(given, trial_id=""),  # "": each run has its own row
    ]


def _settings(config: Config) -> dict[str, str | float | None]:
    """The settings in the table; None for those that this kind of model does not have."""
    model, train = config.model, config.train
    dropouts = ("dropout", "input_dropout", "output_dropout", "weight_dropout")
    return {
        "model": model.kind,
        "n_layer": model.n_layer,
        "width": model.width,
        "n_head": model.n_head if isinstance(model, GPTConfig) else None,
        **{name: getattr(model, name, None) for name in dropouts},
        "optimizer": train.optimizer.kind,
        "lr": train.optimizer.lr,
        "batch_size": train.batch_size,
        "seq_len": train.seq_len,
        "text": visible(str(config.data.path)),
    }
