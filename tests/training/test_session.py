"""Beginning a run from another's weights, and what a resumed one may change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from charlm.errors import CheckpointError, ConfigError, DataError
from charlm.models import build_model
from charlm.training import session
from charlm.training.checkpoint import BEST, LAST, read_meta
from tests.training.helpers import KINDS, go_on, make_config, new_run, train, weights_of

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
    ready = session.start(config, tmp_path / "new", "cpu", init_from=folder)
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
def test_init_from_says_where_the_weights_are_from_and_what_is_new(
    kind: str, tiny_text: Path, more_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text, kind), tmp_path / "old")
    size = len(read_meta(folder / BEST).vocab)
    config = make_config(more_text, kind)
    weights, grown = session.start(config, tmp_path / "new", "cpu", init_from=folder).notices
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
    ready = session.start(make_config(less), tmp_path / "new", "cpu", init_from=folder / LAST)
    assert ready.run.corpus.vocab.chars == read_meta(folder / LAST).vocab
    assert len(ready.notices) == 1
    assert ready.run.progress.step == 0
    for name, weight in ready.model.named_parameters():
        assert torch.equal(weight, load_file(folder / LAST)[f"model.{name}"])


def test_a_run_begun_from_weights_resumes_exactly(
    tiny_text: Path, more_text: Path, tmp_path: Path
) -> None:
    source = new_run(make_config(tiny_text), tmp_path / "old")
    config = make_config(more_text)
    finals: list[dict[str, Tensor]] = []
    for stop_at in (None, 5):
        ready = session.start(config, tmp_path / str(stop_at), "cpu", init_from=source)
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
            session.start(config, tmp_path / "new", "cpu", init_from=folder)
        assert not (tmp_path / "new").exists()
    other_dropout = make_config(tiny_text, "lstm", "model.dropout=0.5")
    session.start(other_dropout, tmp_path / "new", "cpu", init_from=folder)


def test_a_warm_up_longer_than_the_run_is_refused_whatever_ends_it(
    tiny_text: Path, tmp_path: Path
) -> None:
    ends = ("train.max_steps=null", "train.max_epochs=0.01", "train.schedule.warmup_steps=50")
    with pytest.raises(ConfigError, match="warmup_steps"):
        session.start(make_config(tiny_text, "lstm", *ends), tmp_path, "cpu")


# --- what a resumed run may change -----------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "model.hidden_size=16",
        "model.dropout=0.3",
        "data.val_fraction=0.2",
        "train.batch_size=8",
        "train.seq_len=16",
        "train.seed=1",
        "train.grad_clip=2.0",
        "train.grad_accum=2",
        "train.optimizer.lr=0.1",
        "train.optimizer.kind=sgd",
        "train.schedule.kind=constant",
        "train.precision=bf16",
        "eval.protocol=windows",  # its losses are not to be compared with the best so far
        "eval.max_chars=100",
    ],
)
def test_a_resumed_run_refuses_what_would_make_it_another(
    setting: str, tiny_text: Path, tmp_path: Path
) -> None:
    folder = new_run(make_config(tiny_text), tmp_path, stop_at=3)
    before = (folder / LAST).read_bytes()
    key, _, value = setting.partition("=")
    with pytest.raises(ConfigError, match=rf"cannot change.*{key} \(.*, now '?{value}"):
        session.resume(make_config(tiny_text, "lstm", setting), folder, "cpu")
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
        session.resume(make_config(changed), folder, "cpu")
    assert go_on(make_config(moved), folder) == "finished"


def test_there_must_be_something_to_resume(tiny_text: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"no {LAST} to resume from"):
        session.resume(make_config(tiny_text), tmp_path / "run", "cpu")
