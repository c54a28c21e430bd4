"""Starting a run with the weights of another, and what a resumed run may change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from charlm.checkpoint.format import BEST, LAST
from charlm.checkpoint.read import read_meta
from charlm.config.files import load_config
from charlm.errors import CheckpointError, ConfigError, DataError
from charlm.models import build_model
from tests.training.helpers import (
    KINDS,
    go_on,
    make_config,
    new_run,
    resume,
    same_tensors,
    start,
    train,
    weights_of,
)

ONE_HOT = ("model.input=one_hot",)
TIED = ("model.tie_weights=true",)
NETWORKS = [(kind, ()) for kind in KINDS] + [("rnn", ONE_HOT), ("gru", TIED), ("gpt", TIED)]


@pytest.fixture
def more_text(tiny_text: Path, tmp_path: Path) -> Path:
    """The text, with a new character among the first of the alphabet and one at its end."""
    path = tmp_path / "more.txt"
    path.write_text("!#" + tiny_text.read_text(encoding="utf-8")[:4000] + "ü", encoding="utf-8")
    return path


@pytest.mark.parametrize(("kind", "extra"), NETWORKS)
def test_init_from_keeps_the_known_rows_and_initialises_the_new_ones(
    kind: str, extra: tuple[str, ...], tiny_text: Path, more_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text, kind, *extra), tmp_path / "old")
    old = read_meta(folder / BEST)
    config = make_config(more_text, kind, *extra)
    ready = start(config, tmp_path / "new", "cpu", init_from=folder)
    assert ready.run.corpus.vocab.chars == old.vocab + "#ü"
    fresh = weights_of(build_model(config.model, len(old.vocab) + 2, config.train.seed))
    trained = load_file(folder / BEST)
    for name, weight in ready.model.named_parameters():
        known = trained[f"model.{name}"]
        inside = tuple(slice(size) for size in known.shape)
        assert torch.equal(weight[inside], known), name
        expected = fresh[name].clone()
        expected[inside] = known
        assert torch.equal(weight, expected), name
    assert train(ready) == "finished"


@pytest.mark.parametrize("kind", KINDS)
def test_init_from_reports_its_source_and_the_new_characters(
    kind: str, tiny_text: Path, more_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text, kind), tmp_path / "old")
    size = len(read_meta(folder / BEST).vocab)
    config = make_config(more_text, kind)
    weights, grown = start(config, tmp_path / "new", "cpu", init_from=folder).notices
    assert (
        weights == f"weights from {folder / BEST} (step {read_meta(folder / BEST).progress.step})"
    )
    for part in (f"from {size} to {size + 2}", "'#' (U+0023)", "'ü' (U+00FC)"):
        assert part in grown


def test_init_from_a_text_without_new_characters_keeps_the_vocabulary(
    tiny_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text), tmp_path / "old")
    less = tmp_path / "less.txt"
    less.write_text(tiny_text.read_text(encoding="utf-8").replace("B", "A")[:4000])
    ready = start(make_config(less), tmp_path / "new", "cpu", init_from=folder / LAST)
    assert ready.run.corpus.vocab.chars == read_meta(folder / LAST).vocab
    assert len(ready.notices) == 1
    assert ready.run.progress.step == 0
    for name, weight in ready.model.named_parameters():
        assert torch.equal(weight, load_file(folder / LAST)[f"model.{name}"])


def test_a_run_started_from_weights_resumes_exactly(
    tiny_text: Path, more_text: Path, tmp_path: Path
) -> None:
    source = new_run(make_config(tiny_text), tmp_path / "old")
    config = make_config(more_text)
    finals: list[dict[str, Tensor]] = []
    for stop_at in (None, 5):
        ready = start(config, tmp_path / str(stop_at), "cpu", init_from=source)
        train(ready, stop_at)
        go_on(config, ready.run.folder)
        finals.append(load_file(ready.run.folder / LAST))
    one, other = finals
    assert all(torch.equal(one[name], other[name]) for name in one | other)


def test_init_from_another_architecture_is_refused(tiny_text: Path, tmp_path: Path) -> None:
    folder = new_run(make_config(tiny_text), tmp_path / "old")
    for changed, said in (
        ("model.hidden_size=16", "model.hidden_size is 16 here and 8 there"),
        ("model.kind=gru", "model.kind is 'gru' here and 'lstm' there"),
    ):
        config = make_config(tiny_text, "lstm", changed)
        with pytest.raises(ConfigError, match=said):
            start(config, tmp_path / "new", "cpu", init_from=folder)
        assert not (tmp_path / "new").exists()
    other_dropout = make_config(tiny_text, "lstm", "model.dropout=0.5")
    start(other_dropout, tmp_path / "new", "cpu", init_from=folder)


@pytest.mark.parametrize(
    ("limit", "steps"), [("train.max_epochs=0.21", 119), ("train.max_steps=50", 50)]
)
def test_a_warm_up_that_is_not_shorter_than_the_run_is_shortened(
    limit: str, steps: int, tiny_text: Path, tmp_path: Path
) -> None:
    for warmup in (steps - 1, steps, 1000):
        overrides = ("train.max_steps=null", limit, f"train.schedule.warmup_steps={warmup}")
        ready = start(make_config(tiny_text, "lstm", *overrides), tmp_path, "cpu")
        assert ready.run.limits.steps == steps
        said = [notice for notice in ready.notices if "warm-up" in notice]
        if warmup < steps:
            assert (ready.run.schedule.warmup_steps, said) == (warmup, [])
        else:
            assert ready.run.schedule.warmup_steps == steps // 10
            assert f"warmup_steps: {warmup} is not below the {steps} steps" in said[0]
        assert ready.run.config.train.schedule.warmup_steps == warmup  # may be resumed for longer


# --- a batch that fits the text --------------------------------------------------------------

SMALL = ("train.batch_size=12", "train.grad_accum=4", "data.val_fraction=0", "eval.every=null")


@pytest.fixture
def small_text(tmp_path: Path) -> Path:
    """A text of 88 characters, 11 sequences of 8."""
    path = tmp_path / "small.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 2)
    return path


def test_a_run_on_a_small_text_gets_a_smaller_batch_and_reports_it(
    small_text: Path, tmp_path: Path
) -> None:
    text = small_text.read_text()[:75]
    small_text.write_text(text)
    ready = start(make_config(small_text, "lstm", *SMALL), tmp_path, "cpu")
    assert (ready.run.config.train.batch_size, ready.run.config.train.grad_accum) == (9, 1)
    assert ready.notices[0] == (
        "the training part of the text has 75 characters, 9 sequences of 8 characters: "
        "train.batch_size is 9, not 12"
    )
    assert train(ready) == "finished"
    meta = read_meta(ready.run.folder / LAST)
    assert (meta.config.train.batch_size, meta.config.train.grad_accum) == (9, 1)
    assert load_file(ready.run.folder / LAST)["state.0.0"].shape[1] == 9
    assert load_config(ready.run.folder / "config.yaml") == meta.config


def test_a_run_with_a_smaller_batch_resumes_exactly_with_the_given_and_the_saved_config(
    small_text: Path, tmp_path: Path
) -> None:
    config = make_config(small_text, "lstm", *SMALL)
    reference = new_run(config, tmp_path / "never")
    assert read_meta(reference / LAST).config.train.batch_size == 11
    for name, saved in (("given", None), ("saved", "config.yaml")):
        folder = new_run(config, tmp_path / name, stop_at=5)
        ready = resume(load_config(folder / saved) if saved else config, folder, "cpu")
        assert not any("batch_size" in notice for notice in ready.notices)  # reported before
        train(ready)
        assert same_tensors(folder / LAST, reference / LAST)


def test_another_batch_size_is_refused(small_text: Path, tmp_path: Path) -> None:
    config = make_config(small_text, "lstm", *SMALL)
    folder = new_run(config, tmp_path, stop_at=5)
    other = make_config(small_text, "lstm", *SMALL, "train.batch_size=8")
    with pytest.raises(ConfigError, match=r"cannot change train.batch_size \(11, now 8\)"):
        resume(other, folder, "cpu")


def test_a_text_with_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    for text, words in (
        ("aaaa" * 99, "all characters of this text are the same"),
        ("ab" * 4, "8 needs 9"),
    ):
        (tmp_path / "text.txt").write_text(text)
        config = make_config(tmp_path / "text.txt", "lstm", "data.val_fraction=0")
        with pytest.raises(DataError, match=words):
            start(config, tmp_path / "out", "cpu")
        assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_one_character_is_refused(tiny_text: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        start(make_config(tiny_text, "lstm", "data.vocab_min_count=99999"), tmp_path, "cpu")


@pytest.mark.parametrize(("before", "after"), [("char", "byte"), ("byte", "char")])
def test_init_from_a_model_of_another_unit_is_refused(
    before: str, after: str, tiny_text: Path, tmp_path: Path
) -> None:
    """Their ids have other meanings: é is one character, U+00E9, but two bytes."""
    unit = (f"data.unit={before}", "train.max_steps=1")
    folder = new_run(make_config(tiny_text, "lstm", *unit), tmp_path / "old")
    config = make_config(tiny_text, "lstm", f"data.unit={after}")
    with pytest.raises(ConfigError, match=r"data\.unit"):
        start(config, tmp_path / "new", "cpu", init_from=folder)


# --- what a resumed run may change -----------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "model.hidden_size=16",
        "model.dropout=0.3",
        "data.val_fraction=0.2",
        "data.vocab_min_count=2",
        "data.vocab_size=9",
        "data.separator=x",
        "train.batch_size=8",
        "train.seq_len=16",
        "train.seed=1",
        "train.grad_clip=2.0",
        "train.grad_accum=2",
        "train.optimizer.lr=0.1",
        "train.optimizer.kind=sgd",
        "train.schedule.kind=constant",
        "train.precision=bf16",
        "eval.protocol=windows",  # its losses cannot be compared with the best so far
        "eval.max_chars=100",
    ],
)
def test_a_resumed_run_refuses_settings_that_change_what_is_computed(
    setting: str, tiny_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text), tmp_path, stop_at=3)
    before = (folder / LAST).read_bytes()
    key, _, value = setting.partition("=")
    with pytest.raises(ConfigError, match=rf"cannot change.*{key} \(.*, now '?{value}"):
        resume(make_config(tiny_text, "lstm", setting), folder, "cpu")
    assert (folder / LAST).read_bytes() == before


@pytest.mark.parametrize(
    "setting",
    [
        "eval.every=3",
        "sample.temperature=0",
        "train.compile=auto",
        "train.keep_every=2",
        "train.log_every=2",
        "train.max_steps=14",
        "train.patience=5",
        "train.save_every=1",
    ],
)
def test_a_resumed_run_may_change_its_limits_and_records(
    setting: str, tiny_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text), tmp_path, stop_at=3)
    config = make_config(tiny_text, "lstm", setting)
    assert go_on(config, folder) == "finished"
    assert read_meta(folder / LAST).config == config


def test_the_text_may_move_but_not_change(tiny_text: Path, tmp_path: Path) -> None:
    moved, changed = tmp_path / "moved.txt", tmp_path / "changed.txt"
    text = tiny_text.read_text(encoding="utf-8")
    moved.write_text(text)
    changed.write_text(text[::-1])
    folder = new_run(make_config(tiny_text), tmp_path, stop_at=3)
    with pytest.raises(DataError, match="not the text this run was trained on"):
        resume(make_config(changed), folder, "cpu")
    assert go_on(make_config(moved), folder) == "finished"


def test_the_validation_and_test_texts_may_not_be_swapped(tiny_text: Path, tmp_path: Path) -> None:
    """Even if the texts together are the same."""
    (tmp_path / "own.txt").write_text(tiny_text.read_text()[:3000])
    own = [f"data.{part}_path={tmp_path / 'own.txt'}" for part in ("val", "test")]
    none = "data.val_fraction=0"
    folder = new_run(make_config(tiny_text, "rnn", none, own[0]), tmp_path, stop_at=3)
    with pytest.raises((ConfigError, DataError)):
        resume(make_config(tiny_text, "rnn", none, own[1]), folder, "cpu")


def test_a_folder_without_a_checkpoint_cannot_be_resumed(tiny_text: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"no {LAST} to resume from"):
        resume(make_config(tiny_text), tmp_path / "run", "cpu")


def test_a_long_setting_that_may_not_change_is_shown_shortened(
    tiny_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text), tmp_path, stop_at=3)
    longer = f"data.separator={'x' * 100_000}"
    with pytest.raises(ConfigError, match=r"cannot change data\.separator") as caught:
        resume(make_config(tiny_text, "lstm", longer), folder, "cpu")
    assert len(str(caught.value)) < 1000
