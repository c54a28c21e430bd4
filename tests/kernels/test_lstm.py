"""The LSTM with charlm's kernel, against PyTorch in float64. Skipped on a CPU without AMX."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.config import RecurrentConfig
from charlm.data.batches import IGNORED
from charlm.evaluation.loss import summed_nll
from charlm.kernels.fused import FusedLSTM
from charlm.kernels.lstm import LSTMKernel
from charlm.models import build_model
from charlm.models.recurrent import Recurrent
from tests.kernels import loaded

V = 21
ROUNDING = 0.02  # relative: bfloat16 has 8 bits, and errors add up over time


@pytest.fixture(scope="module")
def kernel() -> LSTMKernel:
    return loaded(LSTMKernel)


def model_of(n_layer: int = 1, hidden_size: int = 64, **options: Any) -> Recurrent:
    config = RecurrentConfig(kind="lstm", n_layer=n_layer, hidden_size=hidden_size, **options)
    model = build_model(config, V, seed=3)
    assert isinstance(model, Recurrent)
    return model


def texts(B: int, T: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(B + T)
    ids, targets = torch.randint(0, V, (2, B, T), generator=generator)
    return ids, targets


def gradients(
    forward: Any, model: Recurrent, ids: Tensor, targets: Tensor, state: Any, half: bool
) -> tuple[float, dict[str, Tensor], tuple[Tensor, ...]]:
    """The loss, the gradients with respect to all weights, and the state after."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logits, after = forward(ids, state)
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).to(torch.float32 if half else torch.float64), targets.flatten()
    )
    torch.autograd.backward(loss)
    grads = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), grads, tuple(tensor.detach() for tensor in after)


def distance(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize(
    ("B", "T", "options"),
    [
        (16, 30, {}),
        (32, 30, {"hidden_size": 128}),
        (48, 9, {"n_layer": 2}),
        (80, 3, {"n_layer": 3, "hidden_size": 192}),
        (23, 12, {"n_layer": 2}),  # padded to a batch of 32
        (16, 1, {"n_layer": 2}),  # fewer positions than characters: no table
        (32, 20, {"input": "one_hot"}),
        (32, 20, {"tie_weights": True}),
    ],
)
def test_loss_gradients_and_states_are_those_of_float64_within_rounding(
    kernel: LSTMKernel, B: int, T: int, options: dict[str, Any], state: bool, threads: int
) -> None:
    model, exact = model_of(**options), model_of(**options).double()
    ids, targets = texts(B, T)
    shape = (model.rnn.num_layers, B, model.rnn.hidden_size)
    before = (torch.randn(shape) * 0.5, torch.randn(shape)) if state else None
    double = tuple(tensor.double() for tensor in before) if before else None
    used = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        ours = gradients(FusedLSTM(model, kernel), model, ids, targets, before, half=True)
    finally:
        torch.set_num_threads(used)
    theirs = gradients(exact, exact, ids, targets, double, half=False)
    assert ours[0] == pytest.approx(theirs[0], rel=2e-3)
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in theirs[1].items():
        if grad.any():
            assert distance(ours[1][name], grad) < ROUNDING, name
        else:  # W_hh after one step from a state of zeros
            assert not ours[1][name].any()
    for mine, own in zip(ours[2], theirs[2], strict=True):
        assert mine.shape == own.shape
        assert distance(mine, own) < ROUNDING


def test_a_text_read_in_two_parts_gives_the_logits_and_state_of_the_whole_text(
    kernel: LSTMKernel,
) -> None:
    model = model_of(n_layer=2)
    forward, (ids, _) = FusedLSTM(model, kernel), texts(16, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, end = forward(ids, None)
        first, middle = forward(ids[:, :11], None)
        second, also_end = forward(ids[:, 11:], middle)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert all(torch.equal(a, b) for a, b in zip(end, also_end, strict=True))


def test_the_bits_depend_neither_on_threads_nor_on_other_rows_of_the_batch(
    kernel: LSTMKernel,
) -> None:
    model = model_of()
    ids, _ = texts(64, 12)
    results = []
    used = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits, _ = FusedLSTM(model, kernel)(ids, None)
                few, _ = FusedLSTM(model, kernel)(ids[:16], None)
            assert torch.equal(few, logits[:16])
            results.append(logits)
    finally:
        torch.set_num_threads(used)
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("setting", ["input_dropout", "dropout", "output_dropout"])
def test_dropout_acts_where_the_model_has_it(kernel: LSTMKernel, setting: str) -> None:
    options: dict[str, Any] = {setting: 0.5}
    model = model_of(n_layer=2, **options)
    forward, (ids, _) = FusedLSTM(model, kernel), texts(16, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(1)
        one, again = forward(ids, None)[0], forward(ids, None)[0]
        torch.manual_seed(1)
        same = forward(ids, None)[0]
        model.eval()
        without, plain = forward(ids, None)[0], model(ids, None)[0]
    assert torch.equal(one, same)
    assert not torch.equal(one, again)
    assert distance(without.detach(), plain.detach()) < ROUNDING
    assert distance(one.detach(), plain.detach()) > 5 * ROUNDING


def test_weight_dropout_is_that_of_the_model(kernel: LSTMKernel) -> None:
    model = model_of(n_layer=2, weight_dropout=0.5)
    ids, targets = texts(16, 10)
    torch.manual_seed(1)
    ours = gradients(FusedLSTM(model, kernel), model, ids, targets, None, half=True)
    torch.manual_seed(1)
    theirs = gradients(model, model, ids, targets, None, half=True)
    assert ours[0] == pytest.approx(theirs[0], rel=2e-3)
    for name, grad in theirs[1].items():
        assert distance(ours[1][name], grad) < 2 * ROUNDING, name
        assert torch.equal(ours[1][name] == 0, grad == 0) or "weight_hh" not in name


def test_ignored_targets_give_no_gradient(kernel: LSTMKernel) -> None:
    model, (ids, targets) = model_of(), texts(16, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _ = FusedLSTM(model, kernel)(ids, None)
    torch.autograd.backward(summed_nll(logits, torch.full_like(targets, IGNORED)))
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_large_weights_give_finite_results(kernel: LSTMKernel) -> None:
    model = model_of()
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.mul_(1000)
    _, grads, state = gradients(FusedLSTM(model, kernel), model, *texts(16, 20), None, half=True)
    assert all(tensor.isfinite().all() for tensor in (*grads.values(), *state))


@pytest.mark.parametrize(
    ("options", "batch_size", "supported"),
    [
        ({}, 16, True),
        ({}, 8, True),
        ({}, 7, False),
        ({"hidden_size": 96}, 16, False),
        ({"hidden_size": 192}, 32, True),
    ],
)
def test_supported_models(options: dict[str, Any], batch_size: int, supported: bool) -> None:
    assert FusedLSTM.supports(model_of(**options), batch_size) == supported
    gru = build_model(RecurrentConfig(kind="gru", hidden_size=64), V, seed=0)
    assert not FusedLSTM.supports(gru, 16)
