"""Wrong settings, and the messages about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from charlm.config import Config, GPTConfig
from charlm.config.files import parse_config
from charlm.errors import ConfigError


def config(*overrides: str) -> Config:
    return parse_config({"name": "a", "data": {"path": "a"}}, overrides)


def problems(*overrides: str) -> list[str]:
    """The lines of the message."""
    with pytest.raises(ConfigError) as caught:
        config(*overrides)
    return [line.strip() for line in str(caught.value).splitlines()]


# --- unknown keys ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("modl.kind=gru", "modl: unknown key; did you mean model?"),
        ("train.max_step=5", "train.max_step: unknown key; did you mean train.max_steps?"),
        ("train.optimizer.weight_decy=5", "did you mean train.optimizer.weight_decay?"),
        ("model.hiden_size=5", "for kind lstm; did you mean model.hidden_size?"),
        ("hidden_size=5", "hidden_size: unknown key; did you mean model.hidden_size?"),
        ("train.lr=5", "train.lr: unknown key; did you mean train.optimizer.lr?"),
        ("model.seq_lenn=5", "did you mean train.seq_len?"),
        ("train.warmup_steps=5", "did you mean train.schedule.warmup_steps?"),
        ("eval.zzz=5", "eval.zzz: unknown key; known keys: every, insight, max_chars, "),
    ],
)
def test_an_unknown_key_is_refused_with_the_most_similar_key(override: str, problem: str) -> None:
    (line,) = problems(override)
    assert problem in line


@pytest.mark.parametrize(
    ("kind", "override"),
    [
        ("model.kind=gpt", "model.hidden_size=8"),
        ("model.kind=lstm", "model.n_embd=8"),
        ("train.optimizer.kind=adam", "train.optimizer.momentum=0.5"),
        ("train.schedule.kind=constant", "train.schedule.min_lr_ratio=0.5"),
    ],
)
def test_a_key_of_another_kind_is_refused_and_not_suggested(kind: str, override: str) -> None:
    (line,) = problems(kind, override)
    key = override.partition("=")[0]
    assert line.startswith(f"{key}: unknown key for kind {kind.partition('=')[2]}; ")
    assert f"did you mean {key}?" not in line


# --- wrong values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.batch_size=many", "train.batch_size: 'many' should be an integer"),
        ("train.batch_size=1.5", "train.batch_size: 1.5 should be an integer"),
        ("train.batch_size=0", "train.batch_size: 0 should be greater than or equal to 1"),
        ("train.max_steps=0", "train.max_steps: 0 should be greater than or equal to 1"),
        ("train.max_epochs=0", "train.max_epochs: 0 should be above 0"),
        ("train.optimizer.lr=-1e-3", "train.optimizer.lr: -0.001 should be above 0"),
        ("train.optimizer.lr=1e999", "train.optimizer.lr: inf should be a finite number"),
        ("train.optimizer.betas=[0.9]", "train.optimizer.betas"),
        ("train.optimizer.betas=0.9", "train.optimizer.betas: 0.9 should be a list of 2 numbers"),
        (
            "train.optimizer.betas=[0.1, 0.2, 0.3]",
            "train.optimizer.betas: [0.1, 0.2, 0.3] should be a list of 2 numbers",
        ),
        ("train.optimizer.betas=[0.9, 1]", "train.optimizer.betas.1: 1 should be less than 1"),
        ("model.dropout=1", "model.dropout: 1 should be less than 1"),
        ("model.context=1", "model.context: unknown key for kind lstm"),
        ("train.precision=bf61", "train.precision: 'bf61' should be 'auto', 'fp32', 'bf16' or"),
        ("data.path=", "data.path: '' should be a non-empty string"),
        ("name=a/b", "name: 'a/b' should be letters, digits"),
        ("sample.temperature=-1", "sample.temperature: -1 should be greater than or equal to 0"),
        ("sample.top_k=0", "sample.top_k: 0 should be greater than or equal to 1"),
        ("sample.top_p=2", "sample.top_p: 2 should be less than or equal to 1"),
        ("train=5", "train: 5 should be a group of settings"),
        ("model=[]", "model: [] should be a group of settings"),
        ("train.optimizer=adam", "train.optimizer: 'adam' should be a group of settings"),
    ],
)
def test_a_wrong_value_is_refused_by_its_dotted_name(override: str, problem: str) -> None:
    (line,) = problems(override)
    assert line.startswith(problem)


@pytest.mark.parametrize("boolean", ["true", "false"])
@pytest.mark.parametrize(
    "key",
    [
        *("train.batch_size", "train.max_steps", "train.max_epochs", "train.optimizer.lr"),
        *("model.dropout", "data.val_fraction", "eval.every", "sample.top_k", "train.seed"),
    ],
)
def test_a_boolean_is_not_a_number(key: str, boolean: str) -> None:
    assert problems(f"{key}={boolean}") == [f"{key}: {boolean.title()} should be a number"]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.kind=transformer", "model.kind: transformer is not one of rnn, gru, lstm, gpt"),
        ("model.kind=ltsm", "model.kind: ltsm is not one of rnn, gru, lstm, gpt, mlp; did you"),
        ("train.optimizer.kind=admw", "did you mean adamw?"),
        ("train.schedule.kind=cosin", "did you mean cosine?"),
        ("model.kind=", "model.kind: None is not one of "),
    ],
)
def test_an_unknown_kind_is_refused_with_the_known_ones(override: str, problem: str) -> None:
    (line,) = problems(override)
    assert problem in line


def test_a_missing_setting_is_reported_with_its_meaning() -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.path: missing; set data\.path \(source of the text\)$"
    ):
        parse_config({"name": "a", "data": {}})
    with pytest.raises(ConfigError, match=r"^data: missing; set data\.path \(source"):
        parse_config({"name": "a"})


# --- contradictions --------------------------------------------------------------------------

GPT = "model.kind=gpt"
CONTRADICTIONS = [
    (["train.batch_size=10", "train.grad_accum=4"], "train.grad_accum: 4 does not divide"),
    (["model.input=one_hot", "model.tie_weights=true"], "model.tie_weights: "),
    (
        ["model.dropout=0.5"],
        "model.dropout: 0.5 applies between two layers, but model.n_layer is 1; ",
    ),
    (["train.patience=3", "eval.every="], "train.patience: it counts evaluations, but eval.every"),
    (["train.patience=3", "data.val_fraction=0"], "train.patience: it counts evaluations, but dat"),
    (
        ["data.val_fraction=0.5", "data.test_fraction=0.5"],
        "data.val_fraction: the sum with data.test_fraction is 1, which leaves nothing",
    ),
    ([GPT, "model.n_embd=100", "model.n_head=3"], "model.n_embd: 100 is not divisible by"),
    ([GPT, "model.n_embd=12", "model.n_head=4"], "model.n_head: rope needs an even head width"),
    ([GPT, "model.n_embd=9", "model.n_head=3", "model.position=sinusoidal"], "model.n_embd: sin"),
    ([GPT, "train.seq_len=64"], "train.seq_len: 64 is not model.context 128"),
    ([GPT, "train.batches=streams"], "train.batches: a gpt does not support streams"),
    (
        ["train.batches=items", "eval.protocol=stream"],
        "train.batches: items needs a list of documents; set data.documents to lines",
    ),
    (
        ["eval.protocol=items"],
        "eval.protocol: items needs a list of documents; set data.documents to lines",
    ),
]
IDS = [problem.partition(":")[0] for _, problem in CONTRADICTIONS]


@pytest.mark.parametrize(("overrides", "problem"), CONTRADICTIONS, ids=IDS)
def test_settings_that_contradict_each_other_are_refused(
    overrides: list[str], problem: str
) -> None:
    (line,) = problems(*overrides)
    assert line.startswith(problem)


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.max_steps=50", "train.schedule.warmup_steps=50"],
        ["train.batch_size=12", "train.grad_accum=4"],
        ["model.tie_weights=true"],
        ["model.dropout=0.5", "model.n_layer=2"],
        ["train.patience=3", "eval.every=10"],
        ["data.val_fraction=0.5", "data.test_fraction=0.4"],
        [GPT, "model.n_embd=12", "model.n_head=4", "model.position=learned"],
        [GPT, "train.seq_len=32", "model.context=32", "train.batches=windows"],
        [GPT, "train.batches=items", "data.documents=lines"],
        ["eval.protocol=items", "data.documents=lines"],
        ["train.patience=3", "data.val_path=b"],
    ],
)
def test_settings_close_to_a_contradiction_are_accepted(overrides: list[str]) -> None:
    assert config(*overrides).name == "a"


def test_all_problems_are_reported_together() -> None:
    heading, *lines = problems(
        "modl.kind=gru",
        "train.max_step=5",
        "train.batch_size=true",
        "train.optimizer.lr=fast",
        "model.dropout=0.5",
        "data.val_fraction=0.9",
        "data.test_fraction=0.9",
    )
    assert heading == "6 problems:"
    assert {line.partition(":")[0] for line in lines} == {
        *("modl", "train.max_step", "train.batch_size", "train.optimizer.lr"),
        *("model.dropout", "data.val_fraction"),
    }


# --- valid configs ---------------------------------------------------------------------------


def groups(group: BaseModel) -> Iterator[BaseModel]:
    yield group
    for _, value in group:
        if isinstance(value, BaseModel):
            yield from groups(value)


def test_all_groups_of_a_config_are_frozen() -> None:
    for made in (config(), config(GPT, "train.optimizer.kind=muon")):
        found = list(groups(made))
        assert len(found) == 8
        for group in found:
            field = next(iter(type(group).model_fields))
            with pytest.raises(ValidationError, match="frozen"):
                setattr(group, field, getattr(group, field))


@pytest.mark.parametrize(
    ("overrides", "seq_len"), [([], GPTConfig().context), (["model.context=32"], 32)]
)
def test_a_gpt_reads_windows_of_its_context(overrides: list[str], seq_len: int) -> None:
    train = config(GPT, *overrides).train
    assert (train.batches, train.seq_len) == ("windows", seq_len)


def test_a_recurrent_model_reads_streams() -> None:
    assert config().model.kind == "lstm"
    assert config().train.batches == "streams"
    assert config("train.batches=windows").train.batches == "windows"


@pytest.mark.parametrize("kind", ["lstm", "gpt"])
def test_a_run_that_trains_on_items_is_evaluated_on_items_by_default(kind: str) -> None:
    base = (f"model.kind={kind}", "data.documents=lines")
    assert config(*base).eval.protocol == "stream"
    assert config(*base, "train.batches=items").eval.protocol == "items"
    assert config(*base, "train.batches=items", "eval=").eval.protocol == "items"
    assert config(*base, "train.batches=items", "eval.every=9").eval.protocol == "items"
    explicit = config(*base, "train.batches=items", "eval.protocol=windows")
    assert (explicit.eval.protocol, explicit.train.batches) == ("windows", "items")


@pytest.mark.parametrize("limit", ["max_steps", "max_epochs", "max_seconds"])
def test_the_default_limit_is_used_only_without_another_limit(limit: str) -> None:
    assert config().train.max_steps == 2000
    limits = config(f"train.{limit}=7").train.model_dump(include={"max_steps", "max_epochs"})
    limits["max_seconds"] = config(f"train.{limit}=7").train.max_seconds
    expected: dict[str, Any] = dict.fromkeys(("max_steps", "max_epochs", "max_seconds"))
    assert limits == expected | {limit: 7}


@pytest.mark.parametrize(
    "group", ["model", "train", "train.optimizer", "train.schedule", "eval", "sample"]
)
def test_an_empty_group_has_its_defaults(group: str) -> None:
    assert config(f"{group}=") == config(f"{group}={{}}") == config()


@pytest.mark.parametrize("empty", [None, {}])
def test_an_empty_group_without_a_required_setting_is_refused_by_that_setting(
    empty: dict[str, Any] | None,
) -> None:
    with pytest.raises(ConfigError, match=r"^data\.path: missing; set data\.path \(source"):
        parse_config({"name": "a", "data": empty})
    assert parse_config({"name": "a", "data": empty}, ["data.path=b"]).data.path == ("b",)
