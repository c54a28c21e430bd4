"""RNN, GRU and LSTM with charlm's kernels, against PyTorch in float64, for each variant."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from charlm.config import RecurrentConfig
from charlm.config.shapes import GATES
from charlm.data.batches import IGNORED
from charlm.evaluation.loss import summed_nll
from charlm.kernels.cells import CellKernel, Weights
from charlm.kernels.recurrent import FusedRecurrent
from charlm.kernels.variants import Variant
from charlm.models import build_model
from charlm.models.recurrent import Recurrent
from tests.kernels import with_threads
from tests.kernels.newton_schulz import distance

V = 21
ROUNDING = {torch.bfloat16: 0.02, torch.float32: 2e-6}  # relative; errors add up over time


@pytest.fixture(params=["rnn", "gru", "lstm"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def model_of(kind: str, n_layer: int = 1, hidden_size: int = 64, **options: Any) -> Recurrent:
    config = RecurrentConfig(kind=kind, n_layer=n_layer, hidden_size=hidden_size, **options)
    model = build_model(config, V, seed=3)
    assert isinstance(model, Recurrent)
    return model


def texts(B: int, T: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(B + T)
    ids, targets = torch.randint(0, V, (2, B, T), generator=generator)
    return ids, targets


def run(forward: Any, variant: Variant | None, ids: Tensor, state: Any = None) -> Any:
    """Logits and state; a variant in bfloat16 runs under autocast, as in training."""
    half = variant is not None and variant.half
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        return forward(ids, state)


def gradients(
    forward: Any, model: Recurrent, variant: Variant | None, text: tuple[Tensor, Tensor], state: Any
) -> tuple[float, dict[str, Tensor], tuple[Tensor, ...]]:
    """The loss, the gradients with respect to all weights, and the state after."""
    model.zero_grad()
    ids, targets = text
    logits, after = run(forward, variant, ids, state)
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).to(dtype), targets.flatten())
    torch.autograd.backward(loss)
    grads = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    return loss.item(), grads, tuple(tensor.detach() for tensor in after)


@pytest.mark.parametrize(
    ("B", "T", "threads", "with_state", "options"),
    [
        (32, 30, 1, False, {"hidden_size": 128}),
        (23, 12, 2, True, {"n_layer": 2}),
        (64, 3, 4, True, {"n_layer": 3, "hidden_size": 37}),  # no whole blocks
        (6, 9, 4, False, {"hidden_size": 5}),
        (16, 1, 1, False, {"n_layer": 2}),  # fewer positions than characters: no table
        (32, 12, 2, True, {"input": "one_hot"}),
        (32, 12, 1, True, {"tie_weights": True}),
    ],
)
def test_loss_gradients_and_states_are_those_of_float64_within_rounding(
    variant: Variant,
    kind: str,
    B: int,
    T: int,
    threads: int,
    with_state: bool,
    options: dict[str, Any],
) -> None:
    model, exact = model_of(kind, **options), model_of(kind, **options).double()
    n_states = 2 if kind == "lstm" else 1
    shape = (n_states, model.rnn.num_layers, B, model.rnn.hidden_size)
    state = tuple(0.5 * torch.randn(shape)) if with_state else None
    double = tuple(tensor.double() for tensor in state) if state else None
    with with_threads(threads):
        ours = gradients(FusedRecurrent(model, variant), model, variant, texts(B, T), state)
    theirs = gradients(exact, exact, None, texts(B, T), double)
    rounding = ROUNDING[variant.dtype]
    assert ours[0] == pytest.approx(theirs[0], rel=rounding / 10)
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in theirs[1].items():
        if grad.any():
            assert distance(ours[1][name], grad) < rounding, name
        else:  # W_hh after one step from a state of zeros
            assert not ours[1][name].any()
    for mine, own in zip(ours[2], theirs[2], strict=True):
        assert mine.shape == own.shape
        assert distance(mine, own) < rounding


def test_a_text_read_in_two_parts_gives_the_logits_and_state_of_the_whole_text(
    variant: Variant, kind: str
) -> None:
    model = model_of(kind, n_layer=2)
    forward, (ids, _) = FusedRecurrent(model, variant), texts(16, 44)
    whole, end = run(forward, variant, ids)
    first, middle = run(forward, variant, ids[:, :22])
    second, also_end = run(forward, variant, ids[:, 22:], middle)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert all(torch.equal(a, b) for a, b in zip(end, also_end, strict=True))


@pytest.mark.parametrize("D", [48, 700])  # threads share sequences, and units
def test_the_bits_depend_neither_on_threads_nor_on_other_rows_of_the_batch(
    variant: Variant, kind: str, D: int
) -> None:
    kernel, generator = CellKernel(variant, kind), torch.Generator().manual_seed(0)
    table = torch.randn(V, GATES[kind] * D, generator=generator)
    W_hh = torch.randn(GATES[kind] * D, D, generator=generator) / D**0.5
    weights = Weights(W_hh, torch.randn(D, generator=generator) if kind == "gru" else None)
    ids = texts(3, 64)[0]  # (T, B)

    def hidden(ids: Tensor) -> Tensor:
        zeros = torch.zeros(ids.shape[1], D)
        return kernel.layer(table, ids, weights, zeros, None if kind == "rnn" else zeros)[0].clone()

    results = []
    for threads in (1, 2, 4, 7):
        with with_threads(threads):
            results.append(hidden(ids))
            assert torch.equal(hidden(ids[:, :16].contiguous()), results[-1][:, :16])
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_a_call_does_not_change_what_an_earlier_one_returned(variant: Variant, kind: str) -> None:
    """Buffers are used again."""
    model = model_of(kind)
    forward, text = FusedRecurrent(model, variant), texts(8, 30)
    first = gradients(forward, model, variant, text, None)
    kept = [tensor.clone() for tensor in (*first[1].values(), *first[2])]
    again = gradients(forward, model, variant, text, None)
    gradients(forward, model, variant, texts(8, 30)[::-1], first[2])
    for a, b, c in zip(
        kept, (*again[1].values(), *again[2]), (*first[1].values(), *first[2]), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("setting", ["input_dropout", "dropout", "output_dropout"])
def test_dropout_acts_where_the_model_has_it(variant: Variant, kind: str, setting: str) -> None:
    options: dict[str, Any] = {setting: 0.5}
    model = model_of(kind, n_layer=2, **options)
    forward, (ids, _) = FusedRecurrent(model, variant), texts(16, 10)
    torch.manual_seed(1)
    one, again = run(forward, variant, ids)[0], run(forward, variant, ids)[0]
    torch.manual_seed(1)
    same = run(forward, variant, ids)[0]
    model.eval()
    without, plain = run(forward, variant, ids)[0], model(ids, None)[0]
    assert torch.equal(one, same)
    assert not torch.equal(one, again)
    assert distance(without.detach(), plain.detach()) < ROUNDING[variant.dtype]
    assert distance(one.detach(), plain.detach()) > 0.1


def test_weight_dropout_is_that_of_the_model(variant: Variant, kind: str) -> None:
    model = model_of(kind, n_layer=2, weight_dropout=0.5)
    text = texts(16, 10)
    torch.manual_seed(1)
    ours = gradients(FusedRecurrent(model, variant), model, variant, text, None)
    torch.manual_seed(1)
    theirs = gradients(model, model, None, text, None)
    for name, grad in theirs[1].items():
        assert distance(ours[1][name], grad) < ROUNDING[variant.dtype], name
        assert torch.equal(ours[1][name] == 0, grad == 0) or "weight_hh" not in name


def test_ignored_targets_give_no_gradient(variant: Variant, kind: str) -> None:
    model, (ids, targets) = model_of(kind), texts(16, 10)
    logits, _ = run(FusedRecurrent(model, variant), variant, ids)
    torch.autograd.backward(summed_nll(logits, torch.full_like(targets, IGNORED)))
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_large_weights_give_finite_results(variant: Variant, kind: str) -> None:
    model = model_of(kind)
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.mul_(1000)
    forward = FusedRecurrent(model, variant)
    logits, state = run(forward, variant, texts(16, 20)[0])
    assert all(tensor.isfinite().all() for tensor in (logits, *state))


def test_weights_that_are_not_numbers_are_seen(variant: Variant, kind: str) -> None:
    model = model_of(kind)
    with torch.no_grad():
        model.rnn.weight_hh_l0[0, 0] = float("nan")
    logits, _ = run(FusedRecurrent(model, variant), variant, texts(16, 20)[0])
    assert logits[:, 1:].isnan().all()
