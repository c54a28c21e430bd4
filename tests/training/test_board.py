"""What TensorBoard shows of a run."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from charlm.checkpoint.format import LAST
from charlm.checkpoint.read import read_meta
from charlm.config.files import to_yaml
from tests.training.helpers import AfterEachStep, go_on, make_config, metrics, new_run, start, train

CLOCK = ("chars_per_s", "memory_mb")
SCALARS = {f"{tag}/{split}" for split in ("train", "val") for tag in ("loss", "bits_per_char")}
SCALARS |= {"loss/val_best", "lr", "grad_norm", *CLOCK}
of_tensorboard = pytest.mark.filterwarnings(
    "ignore:html5lib's sanitizer is deprecated:DeprecationWarning"
)
SETTINGS = ("custom_scalars__config__", "_hparams_/experiment", "_hparams_/session_start_info")


def read_tensorboard(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return what TensorBoard shows of one of its runs: steps and values, or texts, by tag."""
    from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
        plugin_event_accumulator as reader,
    )
    from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

    def value(event: Any) -> Any:
        content = make_ndarray(event.tensor_proto).item()
        return content.decode() if isinstance(content, bytes) else content

    events = reader.EventAccumulator(str(folder), {"tensors": 0})
    events.Reload()
    return {
        tag.removesuffix("/text_summary"): [
            (event.step, value(event)) for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
        if tag not in SETTINGS
    }


def open_tensorboard(logdir: Path) -> tuple[Any, Any]:
    """Return what the plugins of TensorBoard take: a folder of runs, read, and a request."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext  # type: ignore[import-untyped]
    from tensorboard.plugins.base_plugin import TBContext  # type: ignore[import-untyped]

    runs = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(logdir))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(logdir))
    context = TBContext(data_provider=provider, logdir=str(logdir), plugin_name_to_instance={})
    return context, RequestContext()


def make_older(folder: Path) -> None:
    """Make the event files of a run a minute older.

    TensorBoard orders them by the second in their names, and a test is faster than that.
    """
    for path in folder.rglob("events.out.tfevents.*"):
        *prefix, second, host = path.name.split(".", maxsplit=4)
        path.rename(path.with_name(".".join([*prefix, f"{int(second) - 60:010}", host])))


def assert_same_curves(folder: Path, reference: Path) -> None:
    ours, theirs = read_tensorboard(folder), read_tensorboard(reference)
    assert ours.keys() == theirs.keys() == SCALARS | {"config", "sample"}
    for tag in theirs:
        assert [step for step, _ in ours[tag]] == [step for step, _ in theirs[tag]], tag
        if tag not in CLOCK:
            assert ours[tag] == theirs[tag], tag


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_tensorboard_shows_all_measurements_samples_and_the_config(
    kind: str, tiny_text: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_text, kind)
    folder = new_run(config, tmp_path)
    shown = read_tensorboard(folder)
    assert shown.keys() == SCALARS | {"config", "sample"}
    for name in SCALARS - {"loss/val_best", *CLOCK}:
        key, _, split = name.partition("/")
        recorded = [(record["step"], record[key]) for record in metrics(folder, split or "train")]
        assert shown[name] == [(step, pytest.approx(value)) for step, value in recorded]
    losses = [value for _, value in shown["loss/val"]]
    assert [value for _, value in shown["loss/val_best"]] == [
        min(losses[: n + 1]) for n in range(len(losses))
    ]
    for name in CLOCK:
        assert [step for step, _ in shown[name]] == list(range(1, 13))
        assert all(value > 0 for _, value in shown[name])
    assert shown["config"] == [(0, f"```yaml\n{to_yaml(config)}```")]
    samples = (folder / "samples.txt").read_text(encoding="utf-8")
    for step, text in shown["sample"]:
        sample = text.removeprefix("```text\n").removesuffix("\n```")
        assert f"--- step {step}\n{sample}\n\n" in samples
    assert [step for step, _ in shown["sample"]] == [6, 12]


# a stop at a step, or a crash before and after the save at step 5
@pytest.mark.parametrize(
    ("at", "crashes"), [*((at, False) for at in (0, 3, 4, 6, 11)), (3, True), (8, True)]
)
def test_after_a_stop_or_a_crash_the_curves_are_those_of_a_run_never_stopped(
    at: int, crashes: bool, tiny_text: Path, tmp_path: Path
) -> None:
    def crash() -> None:
        if crashes and ready.run.progress.step == at:
            raise KeyboardInterrupt

    config = make_config(tiny_text)
    reference = new_run(config, tmp_path / "never")
    ready = start(config, tmp_path / "stopped", "cpu")
    with pytest.raises(KeyboardInterrupt) if crashes else nullcontext():
        train(ready, None if crashes else at, [AfterEachStep(crash)])
    folder = ready.run.folder
    assert not crashes or read_meta(folder / LAST).progress.step < at
    make_older(folder)
    go_on(config, folder)
    assert_same_curves(folder, reference)


def test_a_run_of_an_older_version_goes_on_in_its_three_entries(
    tiny_text: Path, tmp_path: Path
) -> None:
    """It wrote the events of each split, and those of insight, to a folder in tb/."""
    from charlm.checkpoint.events import EventWriter

    config = make_config(tiny_text)
    folder = new_run(config, tmp_path, stop_at=6)
    begun = read_tensorboard(folder)
    for path in folder.glob("events.out.tfevents.*"):
        path.unlink()
    for split in ("train", "val"):
        old = EventWriter(folder / "tb" / split, 0)
        for step, loss in begun[f"loss/{split}"]:
            old.add_scalar("loss", loss, step)
        old.close()
    make_older(folder)
    go_on(config, folder)
    reference = read_tensorboard(new_run(config, tmp_path / "never"))
    for split in ("train", "val"):
        assert read_tensorboard(folder / "tb" / split)["loss"] == reference[f"loss/{split}"]
    assert not list(folder.glob("events.out.tfevents.*"))


@of_tensorboard
def test_each_run_is_one_entry_with_both_losses_in_one_chart(
    tiny_text: Path, tmp_path: Path
) -> None:
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import (  # type: ignore[import-untyped]
        CustomScalarsPlugin,
    )

    for name in ("one", "two"):
        new_run(make_config(tiny_text, "gpt", f"name={name}"), tmp_path)
    context, asking = open_tensorboard(tmp_path)
    runs = context.data_provider.list_runs(asking, experiment_id="")
    assert sorted(run.run_name for run in runs) == ["one", "two"]
    tags = context.data_provider.list_scalars(asking, experiment_id="", plugin_name="scalars")[
        "one"
    ]
    layout = json.loads(CustomScalarsPlugin(context).layout_impl(asking, ""))
    (category,) = layout["category"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
    for title, key in (("nats per character", "loss"), ("bits per character", "bits_per_char")):
        (pattern,) = charts.pop(title)
        assert {tag for tag in tags if re.match(pattern, tag)} == {f"{key}/train", f"{key}/val"}
    assert not charts


@of_tensorboard
def test_the_table_of_runs_has_their_settings_and_losses(tiny_text: Path, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import (  # type: ignore[import-untyped]
        api_pb2,
        backend_context,
        get_experiment,
        list_session_groups,
    )

    gpt = make_config(tiny_text, "gpt", "name=one")
    lstm = make_config(tiny_text, "lstm", "name=two", "train.optimizer.lr=0.25")
    folders = [new_run(config, tmp_path) for config in (gpt, lstm)]
    opened, asking = open_tensorboard(tmp_path)
    context = backend_context.Context(opened)
    request = api_pb2.GetExperimentRequest()
    table = get_experiment.Handler(asking, context, "", request).run()
    columns = {info.name for info in table.hparam_infos}
    metrics_shown = [info.name for info in table.metric_infos]
    asked = api_pb2.ListSessionGroupsRequest(
        col_params=[api_pb2.ColParams(metric=name) for name in metrics_shown],
        allowed_statuses=[api_pb2.STATUS_UNKNOWN],
        slice_size=9,
    )
    groups = list_session_groups.Handler(asking, context, "", asked).run().session_groups
    rows = {group.name: group for group in groups}
    assert rows.keys() == {"one", "two"}
    for config, folder in zip((gpt, lstm), folders, strict=True):
        row = rows[config.name]
        assert row.hparams.keys() <= columns
        assert row.hparams["model"].string_value == config.model.kind
        assert row.hparams["width"].number_value == 8
        assert row.hparams["seq_len"].number_value == 8
        assert row.hparams["lr"].number_value == pytest.approx(config.train.optimizer.lr)
        losses = [record["loss"] for record in metrics(folder, "val")]
        assert {value.name.tag: value.value for value in row.metric_values} == {
            "loss/val": pytest.approx(losses[-1]),
            "loss/val_best": pytest.approx(min(losses)),
        }
    assert "n_head" in rows["one"].hparams
    assert "n_head" not in rows["two"].hparams


@of_tensorboard
def test_a_sample_with_a_fence_stays_inside_its_fence(tiny_text: Path, tmp_path: Path) -> None:
    from tensorboard.plugin_util import markdown_to_safe_html  # type: ignore[import-untyped]

    prompt = "```\n# A heading\n\n<b>bold</b>\n```\n````\n~~~\n    x\n\x1b[2J\u202e\u2028"
    fenced = tmp_path / "fenced.txt"
    fenced.write_text(tiny_text.read_text(encoding="utf-8")[:3000] + prompt, encoding="utf-8")
    config = make_config(fenced, "rnn", f"sample.prompt={prompt}")
    shown = read_tensorboard(new_run(config, tmp_path))
    seen = prompt.replace("\x1b[2J\u202e\u2028", r"\x1b[2J\u202e\u2028")
    for (_, markdown), text in zip(
        [*shown["sample"], *shown["config"]], [seen, seen, to_yaml(config)], strict=True
    ):
        page = markdown_to_safe_html(markdown)
        found = re.fullmatch(r"<pre><code[^>]*>([^<]*)</code></pre>", page)
        assert found
        assert unescape(found[1]).startswith(text)
