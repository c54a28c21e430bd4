"""Training steps, compared with a simple loop."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.checkpoint.format import LAST
from charlm.config import Config
from charlm.config.files import parse_config
from charlm.data.corpus import open_corpus
from charlm.models import CharModel, State, build_model
from charlm.randomness import generator
from charlm.training.compute import Compute
from charlm.training.step import Stepper
from tests.training.helpers import (
    NETWORKS,
    AfterEachStep,
    metrics,
    new_run,
    plain_config,
    saved_weights,
    start,
    train,
)

STEPS, LR = 3, 0.5
SGD = (
    "train.optimizer.kind=sgd",
    "train.optimizer.momentum=0",
    f"train.optimizer.lr={LR}",
    f"train.max_steps={STEPS}",
)


def batch_by_hand(ids: Tensor, config: Config, step: int) -> tuple[Tensor, Tensor]:
    """Row b of the streams starts at b/B of the text; every step draws new windows."""
    n, B, T = len(ids), config.train.batch_size, config.train.seq_len
    if config.train.batches == "streams":
        starts = [b * n // B + step * T for b in range(B)]
    else:
        starts = list(generator(config.train.seed, "batches", step).integers(0, n - T, B))
    rows = torch.stack([ids[[(start + t) % n for t in range(T + 1)]] for start in starts])
    return rows[:, :-1], rows[:, 1:]


def train_by_hand(
    config: Config, clip: float = math.inf
) -> tuple[dict[str, Tensor], list[float], list[float]]:
    """Weights, losses and gradient norms of plain gradient descent."""
    corpus = open_corpus(config.data)
    ids = torch.from_numpy(corpus.split("train")[:].astype(np.int64))
    model = build_model(config.model, len(corpus.vocab), config.train.seed)
    weights = dict(model.named_parameters())
    state: State | None = None
    losses, norms = [], []
    for step in range(STEPS):
        x, y = batch_by_hand(ids, config, step)
        logits, after = model(x, state)
        loss = -F.log_softmax(logits, dim=-1).gather(-1, y[..., None]).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()))
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        with torch.no_grad():
            for weight, gradient in zip(weights.values(), gradients, strict=True):
                weight.sub_(LR * gradient * min(1.0, clip / norm))
        if config.train.batches == "streams" and not config.train.fresh_state:
            state = tuple(tensor.detach() for tensor in after)
        losses.append(loss.item())
        norms.append(norm)
    return {name: weight.detach() for name, weight in weights.items()}, losses, norms


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("pieces", [1, 2, 4])
@pytest.mark.parametrize(("kind", "batches"), NETWORKS)
def test_training_is_plain_gradient_descent_with_and_without_grad_accum(
    kind: str, batches: str, pieces: int, tiny_text: Path, tmp_path: Path
) -> None:
    shape = (f"train.batches={batches}", f"train.grad_accum={pieces}")
    config = plain_config(tiny_text, kind, *SGD, *shape)
    weights, losses, norms = train_by_hand(config)
    folder = new_run(config, tmp_path)
    assert_close(saved_weights(folder / LAST), weights)
    records = metrics(folder, "train")
    assert [record["loss"] for record in records] == pytest.approx(losses, rel=1e-5)
    assert [record["grad_norm"] for record in records] == pytest.approx(norms, rel=1e-4)


def test_with_only_fresh_states_no_state_is_carried(tiny_text: Path, tmp_path: Path) -> None:
    config = plain_config(tiny_text, "lstm", *SGD, "train.fresh_state=0.999999")
    weights, losses, _ = train_by_hand(config)
    _, other, _ = train_by_hand(plain_config(tiny_text, "lstm", *SGD))
    folder = new_run(config, tmp_path)
    assert_close(saved_weights(folder / LAST), weights)
    assert losses[1:] != pytest.approx(other[1:], rel=1e-5)


def test_each_stream_gets_a_fresh_state_on_its_own_and_at_the_configured_share() -> None:
    raw = {"name": "x", "data": {"path": "x"}, "model": {"hidden_size": 4}}
    config = parse_config(raw, ["train.fresh_state=0.3", "train.batch_size=2000"])
    compute = Compute(torch.device("cpu"), "fp32", 1)
    stepper = Stepper(build_model(config.model, 3, 1), config.train, compute, carries_state=True)
    before = (torch.ones(1, 2000, 4), torch.full((1, 2000, 4), 2.0))
    h, c = stepper._refreshed(before) or ()
    assert torch.equal(c, 2 * h)
    assert torch.equal(h, h[..., :1].expand_as(h))
    assert (h == 0).double().mean().item() == pytest.approx(0.3, abs=0.05)


def test_a_fresh_state_of_an_mlp_is_that_of_the_start_of_a_text() -> None:
    raw = {"name": "x", "data": {"path": "x"}, "model": {"kind": "mlp", "context": 4}}
    config = parse_config(raw, ["train.fresh_state=0.5", "train.batch_size=40"])
    model, ids = build_model(config.model, 3, 1), torch.ones(40, 5, dtype=torch.long)
    compute = Compute(torch.device("cpu"), "fp32", 1)
    stepper = Stepper(model, config.train, compute, carries_state=True)
    state = model(ids)[1]
    alone, carried = model(ids)[0], model(ids, state)[0]
    logits = model(ids, stepper._refreshed(state))[0]
    is_fresh = [torch.equal(*pair) for pair in zip(logits, alone, strict=True)]
    is_carried = [torch.equal(*pair) for pair in zip(logits, carried, strict=True)]
    assert 0 < sum(is_fresh) < 40
    assert is_carried == [not it for it in is_fresh]


def test_a_gradient_with_a_larger_norm_is_clipped(tiny_text: Path, tmp_path: Path) -> None:
    free = plain_config(tiny_text, "lstm", *SGD)
    _, _, norms = train_by_hand(free)
    limit = min(norms) / 3  # so that all three are clipped
    weights, _, norms = train_by_hand(free, limit)
    assert min(norms) > limit
    folder = new_run(plain_config(tiny_text, "lstm", *SGD, f"train.grad_clip={limit}"), tmp_path)
    assert_close(saved_weights(folder / LAST), weights)
    assert [record["grad_norm"] for record in metrics(folder, "train")] == pytest.approx(
        norms, rel=1e-4
    )


def test_a_gradient_with_a_smaller_norm_is_not_changed(tiny_text: Path, tmp_path: Path) -> None:
    folders = [
        new_run(plain_config(tiny_text, "gru", *SGD, f"train.grad_clip={clip}"), tmp_path / clip)
        for clip in ("0", "1e3")
    ]
    one, other = (saved_weights(folder / LAST) for folder in folders)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("kind", "parts"), [("rnn", 1), ("gru", 1), ("lstm", 2), ("mlp", 1)])
@pytest.mark.parametrize("batches", ["streams", "windows"])
def test_each_piece_of_streams_gets_its_detached_state_and_windows_get_none(
    batches: str, kind: str, parts: int, tiny_text: Path, tmp_path: Path
) -> None:
    shape = (f"train.batches={batches}", "train.grad_accum=2", "train.max_steps=3")
    ready = start(plain_config(tiny_text, kind, *shape), tmp_path, "cpu")
    given: list[State | None] = []
    returned: list[State] = []

    def record_states(
        model: CharModel, ids_and_state: tuple[Tensor, State | None], out: object
    ) -> None:
        if model.training:
            assert isinstance(out, tuple)
            given.append(ids_and_state[1])
            returned.append(out[1])

    ready.model.register_forward_hook(record_states)
    train(ready)
    assert len(given) == 6
    if batches == "windows":
        assert given == [None] * 6
        return
    assert given[:2] == [None, None]
    for state, earlier in zip(given[2:], returned, strict=False):
        assert state is not None
        assert len(state) == len(earlier) == parts
        for tensor, before in zip(state, earlier, strict=True):
            assert before.requires_grad == (kind != "mlp")  # ids have no gradient
            assert not tensor.requires_grad
            assert torch.equal(tensor, before)


def test_a_training_record_is_the_mean_of_the_steps_since_the_last(
    tiny_text: Path, tmp_path: Path
) -> None:
    each, third = (
        new_run(plain_config(tiny_text, "lstm", f"train.log_every={n}"), tmp_path / str(n))
        for n in (1, 3)
    )
    steps = metrics(each, "train")
    records = metrics(third, "train")
    assert [record["step"] for record in steps] == list(range(1, 13))
    assert [record["step"] for record in records] == [3, 6, 9, 12]
    for record in records:
        group = [
            step["loss"] for step in steps if record["step"] - 3 < step["step"] <= record["step"]
        ]
        assert record["loss"] == pytest.approx(sum(group) / 3, rel=1e-12)
        assert record["bits_per_char"] == pytest.approx(record["loss"] / math.log(2))
        assert record["chars_seen"] == record["step"] * 4 * 8
        assert record == steps[record["step"] - 1] | {
            key: record[key] for key in ("loss", "bits_per_char")
        }


@pytest.mark.parametrize("schedule", ["cosine", "wsd"])
def test_the_recorded_learning_rate_is_that_of_the_step(
    schedule: str, tiny_text: Path, tmp_path: Path
) -> None:
    settings = (f"train.schedule.kind={schedule}", "train.schedule.warmup_steps=4")
    momentum = "train.optimizer.momentum=0"
    config = plain_config(tiny_text, "lstm", "train.optimizer.kind=sgd", momentum, *settings)
    ready = start(config, tmp_path, "cpu")
    moved: list[float] = []
    before = [parameter.detach().clone() for parameter in ready.model.parameters()]

    def measure() -> None:
        squares = [
            float((new.detach() - old).double().square().sum())
            for new, old in zip(ready.model.parameters(), before, strict=True)
        ]
        moved.append(math.sqrt(sum(squares)))
        before[:] = [parameter.detach().clone() for parameter in ready.model.parameters()]

    train(ready, observers=[AfterEachStep(measure)])
    records = metrics(ready.run.folder, "train")
    assert [record["lr"] * record["grad_norm"] for record in records] == pytest.approx(
        moved, rel=1e-3
    )
    rates = [record["lr"] for record in records]
    assert rates[:5] == pytest.approx([0.5 * k / 5 for k in (1, 2, 3, 4, 5)])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.25
