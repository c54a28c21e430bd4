"""Which characters a step sees, against loops written by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from charlm.config import TrainConfig
from charlm.data.batches import (
    Batches,
    StreamBatches,
    WindowBatches,
    check_length,
    make_batches,
)
from charlm.errors import DataError

CPU = torch.device("cpu")
SIZES = [(60, 3, 5), (61, 3, 5), (7, 3, 5), (100, 1, 9), (13, 13, 1), (50, 4, 49)]  # N, B, T


def streams(n: int, batch_size: int, seq_len: int) -> StreamBatches:
    return StreamBatches(np.arange(n, dtype=np.uint16), batch_size, seq_len, CPU)


def windows(n: int, batch_size: int, seq_len: int, seed: int = 1) -> WindowBatches:
    return WindowBatches(np.arange(n, dtype=np.uint16), batch_size, seq_len, CPU, seed)


def as_lists(batches: Batches, step: int) -> tuple[list[list[int]], list[list[int]]]:
    x, y = batches.batch(step)
    return x.tolist(), y.tolist()


@pytest.mark.parametrize("batches", [streams(100, 4, 7), windows(100, 4, 7)])
def test_a_batch_is_two_tensors_of_batch_size_by_seq_len(batches: Batches) -> None:
    for tensor in batches.batch(3):
        assert tensor.shape == (4, 7)
        assert tensor.dtype == torch.int64


# --- streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "batch_size", "seq_len"), SIZES)
def test_streams_are_those_of_a_hand_written_loop(n: int, batch_size: int, seq_len: int) -> None:
    batches = streams(n, batch_size, seq_len)
    position = [b * n // batch_size for b in range(batch_size)]
    for step in range(3 * n // seq_len + 2):  # goes round several times
        inputs: list[list[int]] = []
        targets: list[list[int]] = []
        for b in range(batch_size):
            inputs.append([])
            targets.append([])
            for _ in range(seq_len):
                inputs[b].append(position[b])
                position[b] = position[b] + 1 if position[b] + 1 < n else 0
                targets[b].append(position[b])
        assert as_lists(batches, step) == (inputs, targets)


def test_a_step_goes_on_where_the_step_before_ended() -> None:
    batches = streams(61, 3, 5)
    for step in range(30):
        (_, before), (after, _) = batches.batch(step), batches.batch(step + 1)
        assert torch.equal(before[:, -1], after[:, 0])
    assert batches.carries_state


@pytest.mark.parametrize(("batch_size", "seq_len", "steps"), [(3, 5, 4), (1, 6, 10), (6, 10, 1)])
def test_an_epoch_of_streams_covers_every_character_once(
    batch_size: int, seq_len: int, steps: int
) -> None:
    n = batch_size * seq_len * steps
    batches = streams(n, batch_size, seq_len)
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for step in range(epoch * steps, (epoch + 1) * steps):
            seen.update(batches.batch(step)[0].flatten().tolist())
        assert seen == dict.fromkeys(range(n), 1)


def test_a_stream_can_be_read_at_a_step_far_away() -> None:
    n, far = 61, 10**9
    x, y = streams(n, 3, 5).batch(far)
    assert x[0].tolist() == [(5 * far + t) % n for t in range(5)]
    assert y[0].tolist() == [(5 * far + t + 1) % n for t in range(5)]


# --- windows ---------------------------------------------------------------------------------


def test_windows_are_a_pure_function_of_seed_and_step() -> None:
    batches, others = windows(500, 8, 6), windows(500, 8, 6)
    forwards = [as_lists(batches, step) for step in range(10)]
    torch.manual_seed(0)
    backwards = [as_lists(others, step) for step in reversed(range(10))]
    assert forwards == backwards[::-1]


def test_windows_differ_from_step_to_step_and_from_seed_to_seed() -> None:
    firsts = [str(as_lists(windows(500, 8, 6, seed), step)) for seed in (1, 2) for step in (0, 1)]
    assert len(set(firsts)) == 4


def test_a_window_is_contiguous_and_its_targets_are_one_ahead() -> None:
    batches = windows(500, 8, 6)
    for step in range(20):
        x, y = batches.batch(step)
        assert torch.equal(y, x + 1)
        assert torch.equal(x, x[:, :1] + torch.arange(6))
    assert not batches.carries_state


def test_windows_begin_at_every_possible_place_equally_often() -> None:
    n, seq_len, draws = 20, 5, 64 * 250
    batches = windows(n, 64, seq_len)
    starts: Counter[int] = Counter()
    for step in range(draws // 64):
        starts.update(batches.batch(step)[0][:, 0].tolist())
    places = range(n - seq_len)  # the last target of the last of them is the text's last character
    assert set(starts) == set(places)
    expected = draws / len(places)
    assert all(0.85 * expected < starts[place] < 1.15 * expected for place in places)


def test_a_text_of_one_window_is_always_that_window() -> None:
    x, y = windows(6, 3, 5).batch(4)
    assert x.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert y.tolist() == [[1, 2, 3, 4, 5]] * 3


# --- which of them ---------------------------------------------------------------------------


def test_the_config_chooses_the_batches_and_the_seed_the_windows() -> None:
    ids = np.arange(200, dtype=np.uint8)
    train = TrainConfig(batch_size=4, seq_len=8, seed=5)
    chosen = make_batches(ids, train, CPU)
    assert isinstance(chosen, StreamBatches)
    assert as_lists(chosen, 2) == as_lists(streams(200, 4, 8), 2)
    chosen = make_batches(ids, train.model_copy(update={"batches": "windows"}), CPU)
    assert isinstance(chosen, WindowBatches)
    assert as_lists(chosen, 2) == as_lists(windows(200, 4, 8, seed=5), 2)


@pytest.mark.parametrize(("batch_size", "seq_len", "need"), [(4, 10, 11), (50, 10, 50), (1, 1, 2)])
def test_a_text_too_short_for_its_batches_is_refused(
    batch_size: int, seq_len: int, need: int
) -> None:
    train = TrainConfig(batch_size=batch_size, seq_len=seq_len)
    check_length(need, train)
    with pytest.raises(DataError) as caught:
        check_length(need - 1, train)
    message = str(caught.value)
    assert f"has {need - 1:,} characters" in message
    assert f"train.seq_len {seq_len} with train.batch_size {batch_size} needs {need:,}" in message


@pytest.mark.parametrize(("batch_size", "seq_len", "need"), [(4, 10, 11), (50, 10, 50), (1, 1, 2)])
@pytest.mark.parametrize("order", ["streams", "windows"])
def test_the_shortest_text_that_is_taken_gives_batches(
    order: str, batch_size: int, seq_len: int, need: int
) -> None:
    train = TrainConfig.model_validate(
        {"batch_size": batch_size, "seq_len": seq_len, "batches": order}
    )
    batches = make_batches(np.arange(need, dtype=np.uint8), train, CPU)
    for step in range(20):
        x, y = batches.batch(step)
        assert torch.equal((x + 1) % need, y)
