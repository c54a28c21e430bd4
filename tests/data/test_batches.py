"""The characters of each step, compared with loops written by hand."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config import TrainConfig
from charlm.data.amounts import AnyIds, fit_batch
from charlm.data.batches import (
    IGNORED,
    Batches,
    DocumentBatches,
    StreamBatches,
    WindowBatches,
    make_batches,
)
from charlm.data.corpus import TextIds
from charlm.errors import DataError
from charlm.randomness import generator

CPU = torch.device("cpu")
SIZES = [(60, 3, 5), (61, 3, 5), (7, 3, 5), (100, 1, 9), (13, 13, 1), (50, 4, 49)]  # N, B, T


def streams(n: int, batch_size: int, seq_len: int) -> StreamBatches:
    train = TrainConfig(batch_size=batch_size, seq_len=seq_len)
    return StreamBatches(np.arange(n, dtype=np.uint16), train, CPU)


def windows(n: int, batch_size: int, seq_len: int, seed: int = 1) -> WindowBatches:
    train = TrainConfig(batch_size=batch_size, seq_len=seq_len, seed=seed)
    return WindowBatches(np.arange(n, dtype=np.uint16), train, CPU)


def documents(ids: TextIds, batch_size: int, seq_len: int, seed: int = 1) -> DocumentBatches:
    return DocumentBatches(ids, TrainConfig(batch_size=batch_size, seq_len=seq_len, seed=seed), CPU)


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
def test_streams_equal_a_loop_written_by_hand(n: int, batch_size: int, seq_len: int) -> None:
    batches = streams(n, batch_size, seq_len)
    position = [b * n // batch_size for b in range(batch_size)]
    for step in range(3 * n // seq_len + 2):  # several times through the text
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


def test_a_step_continues_where_the_step_before_ended() -> None:
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


def test_a_stream_can_be_read_at_any_step() -> None:
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


def test_windows_begin_at_every_possible_position_equally_often() -> None:
    n, seq_len, draws = 20, 5, 64 * 250
    batches = windows(n, 64, seq_len)
    starts: Counter[int] = Counter()
    for step in range(draws // 64):
        starts.update(batches.batch(step)[0][:, 0].tolist())
    positions = range(n - seq_len)  # the last window's last target is the text's last character
    assert set(starts) == set(positions)
    expected = draws / len(positions)
    assert all(0.85 * expected < starts[i] < 1.15 * expected for i in positions)


def test_a_text_of_one_window_is_always_that_window() -> None:
    x, y = windows(6, 3, 5).batch(4)
    assert x.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert y.tolist() == [[1, 2, 3, 4, 5]] * 3


# --- documents -------------------------------------------------------------------------------

DOCUMENTS = st.lists(st.integers(1, 9), min_size=1, max_size=12)  # lengths


def list_of(lengths: list[int]) -> TextIds:
    """A list of documents of these lengths. Every id is its own position in the text."""
    starts = np.cumsum([0, *lengths])
    n = int(starts[-1])
    return TextIds(np.arange(n, dtype=np.uint16), np.arange(n, dtype=np.uint16), starts)


def pieces_by_hand(lengths: list[int], seq_len: int) -> list[list[int]]:
    """The targets of each document, cut into pieces of `seq_len`."""
    positions, result = iter(range(sum(lengths))), []
    for length in lengths:
        document = list(itertools.islice(positions, length))
        result += [document[i : i + seq_len] for i in range(0, length, seq_len)]
    return result


@given(DOCUMENTS, st.integers(1, 9), st.integers(1, 6))
@example([1], 4, 1)
@example([9, 1], 3, 9)
def test_every_epoch_of_documents_has_every_piece_once_in_its_own_order(
    lengths: list[int], batch_size: int, seq_len: int
) -> None:
    ids, pieces = list_of(lengths), pieces_by_hand(lengths, seq_len)
    batches = documents(ids, batch_size, seq_len, seed=3)
    seen: list[list[int]] = []
    for step in range(2 * len(pieces)):  # batch_size epochs, twice
        x, y = batches.batch(step)
        assert x.dtype == y.dtype == torch.int64
        rows = []
        for inputs, targets in zip(x.tolist(), y.tolist(), strict=True):
            rows.append(piece := [target for target in targets if target != IGNORED])
            assert targets == piece + [IGNORED] * (len(targets) - len(piece))
            assert inputs[: len(piece)] == [(target - 1) % len(ids) for target in piece]
        assert x.shape == y.shape == (batch_size, max(map(len, rows)))
        seen += rows
    n = len(pieces)
    for epoch in range(2 * batch_size):
        order = generator(3, "batches", epoch).permutation(n)
        assert seen[epoch * n : (epoch + 1) * n] == [pieces[i] for i in order]
    assert not batches.carries_state


def test_documents_are_a_pure_function_of_seed_and_step() -> None:
    ids = list_of([3, 1, 4, 1, 5, 9, 2, 6])
    batches, others = (documents(ids, 3, 4, seed=1) for _ in range(2))
    forwards = [as_lists(batches, step) for step in range(12)]
    torch.manual_seed(0)
    backwards = [as_lists(others, step) for step in reversed(range(12))]
    assert forwards == backwards[::-1]
    far = documents(ids, 3, 4, seed=1).batch(10**12)[1]
    assert torch.equal(far, batches.batch(10**12)[1])


def test_documents_differ_from_epoch_to_epoch_and_from_seed_to_seed() -> None:
    ids = list_of([1] * 50)
    orders = [
        str(documents(ids, 50, 4, seed=seed).batch(epoch)[1].tolist())
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_a_document_is_read_from_the_line_end_before_it_to_its_own() -> None:
    words = ["Ann\n", "Bo\n", "Christopher\n"]
    text = "".join(words)
    raw = np.array([ord(char) for char in text], np.uint8)
    starts = np.cumsum([0, *map(len, words)])
    whole = TextIds(raw, np.arange(256, dtype=np.uint8), starts)
    for ids, expected in ((whole, words), (whole.stretch(2, None), words[1:])):
        x, y = documents(ids, len(expected), 20, seed=0).batch(0)
        rows = zip(x.tolist(), y.tolist(), strict=True)
        read = {
            "".join(chr(i) for i, t in zip(inputs, targets, strict=True) if t != IGNORED): "".join(
                chr(t) for t in targets if t != IGNORED
            )
            for inputs, targets in rows
        }
        assert read == {"\n" + word[:-1]: word for word in expected}


# --- the choice of batches -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["streams", "windows"])
def test_batches_read_from_a_device_are_the_same(kind: str) -> None:
    make = streams if kind == "streams" else windows
    host, device = make(50, 4, 7), make(50, 4, 7)
    device._ids._on_device = torch.arange(50, dtype=torch.int32)  # as if on a GPU
    assert all(as_lists(host, step) == as_lists(device, step) for step in range(20))


def test_the_config_chooses_the_batches_and_the_seed_their_positions() -> None:
    ids = np.arange(200, dtype=np.uint8)
    train = TrainConfig(batch_size=4, seq_len=8, seed=5)
    chosen = make_batches(ids, train, CPU)
    assert isinstance(chosen, StreamBatches)
    assert as_lists(chosen, 2) == as_lists(streams(200, 4, 8), 2)
    chosen = make_batches(ids, train.model_copy(update={"batches": "windows"}), CPU)
    assert isinstance(chosen, WindowBatches)
    assert as_lists(chosen, 2) == as_lists(windows(200, 4, 8, seed=5), 2)
    names = list_of([9, 2, 7, 1, 5])
    chosen = make_batches(names, train.model_copy(update={"batches": "items"}), CPU)
    assert isinstance(chosen, DocumentBatches)
    assert as_lists(chosen, 2) == as_lists(documents(names, 4, 8, seed=5), 2)


@pytest.mark.parametrize("order", ["streams", "windows"])
def test_batches_of_a_text_on_the_disk_equal_those_of_its_ids(order: str, tmp_path: Path) -> None:
    path = tmp_path / "ids"
    np.arange(200, dtype=np.uint8).tofile(path)
    table = np.arange(256, dtype=np.uint16) * 3
    lazy = TextIds(np.memmap(path, np.uint8, "r"), table).stretch(5, 190)
    train = TrainConfig.model_validate({"batch_size": 4, "seq_len": 8, "batches": order})
    for step in range(30):
        one, other = (make_batches(ids, train, CPU).batch(step) for ids in (lazy, lazy[:]))
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        assert one[0].min() >= 15


# --- the batch size --------------------------------------------------------------------------


def assert_fits(train: TrainConfig, available: int, ids: AnyIds) -> None:
    """Check that `fit_batch` allows a batch of `available` sequences and no more."""
    fitted, notices = fit_batch(ids, train)
    if available >= train.batch_size:
        assert (fitted, notices) == (train, [])
        return
    assert fitted.batch_size == available
    common = [k for k in range(1, available + 1) if available % k == train.grad_accum % k == 0]
    assert fitted.grad_accum == max(common)
    update = {"batch_size": available, "grad_accum": fitted.grad_accum}
    assert fitted == train.model_copy(update=update)
    assert TrainConfig.model_validate(fitted.model_dump()) == fitted
    (notice,) = notices
    assert notice.startswith(
        f"the training part of the text has {len(ids):,} characters, {available:,} "
    )
    assert notice.endswith(f": train.batch_size is {available}, not {train.batch_size}")
    assert fit_batch(ids, fitted) == (fitted, [])


@given(st.integers(0, 400), st.integers(1, 12), st.integers(1, 5), st.integers(1, 60))
def test_a_batch_has_the_size_in_the_config_or_the_largest_that_the_text_allows(
    n: int, pieces: int, size: int, seq_len: int
) -> None:
    raw = {"batch_size": pieces * size, "grad_accum": pieces, "seq_len": seq_len}
    train, ids = TrainConfig.model_validate(raw), np.arange(n)
    if n > seq_len:
        assert_fits(train, n // seq_len, ids)
        return
    with pytest.raises(DataError) as caught:
        fit_batch(ids, train)
    for words in (f"has {n:,} characters", f"train.seq_len {seq_len} needs {seq_len + 1:,}"):
        assert words in str(caught.value)


@given(DOCUMENTS, st.integers(1, 6), st.integers(1, 5), st.integers(1, 12))
def test_a_batch_of_documents_is_no_larger_than_the_list(
    lengths: list[int], pieces: int, size: int, seq_len: int
) -> None:
    raw = {"batch_size": pieces * size, "grad_accum": pieces, "seq_len": seq_len}
    train = TrainConfig.model_validate(raw | {"batches": "items"})
    assert_fits(train, len(pieces_by_hand(lengths, seq_len)), list_of(lengths))


def test_an_empty_list_is_refused() -> None:
    train = TrainConfig.model_validate({"batches": "items"})
    with pytest.raises(DataError, match="the training part of the list has no documents"):
        fit_batch(list_of([3, 4]).stretch(1, 2), train)


@pytest.mark.parametrize(("batch_size", "seq_len", "n"), [(4, 10, 11), (50, 10, 50), (1, 1, 2)])
@pytest.mark.parametrize("order", ["streams", "windows"])
def test_the_shortest_text_that_is_accepted_gives_batches(
    order: str, batch_size: int, seq_len: int, n: int
) -> None:
    raw = {"batch_size": batch_size, "seq_len": seq_len, "batches": order}
    ids = np.arange(n, dtype=np.uint8)
    train, _ = fit_batch(ids, TrainConfig.model_validate(raw))
    batches = make_batches(ids, train, CPU)
    for step in range(20):
        x, y = batches.batch(step)
        assert x.shape == (min(batch_size, n // seq_len), seq_len)
        assert torch.equal((x + 1) % n, y)
