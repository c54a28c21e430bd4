"""The structure of tables, tunes and records: features against how the text was made, and luck."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.data.vocab import Vocab
from charlm.insight.features import Feature
from charlm.insight.record import Array, record_units
from charlm.insight.search import search
from charlm.insight.structure import periods, read_structure
from charlm.models import CharModel, build_model
from tests.models import model_config


def table(lines: int, fixed: bool = False, seed: int = 1) -> tuple[str, list[int]]:
    """A table with commas, and the column of each character; 0 at a line end."""
    choose, text, columns = random.Random(seed), "", []
    for _ in range(lines):
        width = 4 if fixed else choose.randint(2, 5)
        fields = ["".join(choose.choices("abcdefgh", k=width)), f"{choose.randint(100, 999)}"]
        fields += ["".join(choose.choices("abcdefgh", k=4 if fixed else choose.randint(3, 6)))]
        for column, field in enumerate(fields, 1):
            # a comma is read when the next column begins
            text += ("," if column > 1 else "") + field
            columns += [column] * (len(field) + (column > 1))
        text += "\n"
        columns.append(0)
    return text, columns


def tunes(lines: int, seed: int = 2) -> tuple[str, list[int], list[bool]]:
    """Lines of music and headers; the bars so far in each line, and whether it is a header."""
    choose, text, bars, headers = random.Random(seed), "", [], []
    for _ in range(lines):
        header = choose.random() < 0.4
        line = choose.choice("TKM") + ":" + "".join(choose.choices("abcde", k=choose.randint(3, 9)))
        if not header:
            line = "".join("".join(choose.choices("abcdefg2 ", k=choose.randint(3, 6))) + "|"
                           for _ in range(choose.randint(2, 5)))  # fmt: skip
        for position, _ in enumerate(line + "\n"):
            bars.append((line + "\n")[: position + 1].count("|") if position < len(line) else 0)
            headers.append(header and 1 <= position < len(line))
        text += line + "\n"
    return text, bars, headers


def by_name(text: str) -> dict[str, Feature]:
    return {feature.name: feature for feature in read_structure(text)}


# --- features --------------------------------------------------------------------------------


def test_the_columns_of_a_table_are_those_it_was_made_of() -> None:
    text, columns = table(60)
    found = by_name(text)
    names = [f"column {column}, divided by “,”" for column in (1, 2, 3)]
    assert [name for name in found if name.startswith("column")] == names
    for column, name in enumerate(names, 1):
        np.testing.assert_array_equal(found[name].values, np.array(columns) == column)
    commas = np.maximum(np.array(columns) - 1, 0)
    np.testing.assert_array_equal(found["number of “,” in the line"].values, commas)
    np.testing.assert_array_equal(found["after “,” in the line"].values, commas > 0)
    np.testing.assert_array_equal(found["odd number of “,” in the line"].values, commas == 1)


def test_bars_and_headers_of_tunes_are_found() -> None:
    text, bars, headers = tunes(80)
    found = by_name(text)
    np.testing.assert_array_equal(found["number of “|” in the line"].values, bars)
    name = "in a line that begins with capital and “:”"
    np.testing.assert_array_equal(found[name].values, headers)
    assert any(name.startswith("in a line that begins with “K:”") for name in found)


def test_distances_runs_and_lines_equal_a_loop_over_the_text() -> None:
    text, _, _ = tunes(60)
    text = text.replace("\nT", "\n\nT")
    found = by_name(text)
    since, run, line, odd = [], [], [], 0
    for position, char in enumerate(text):
        last = text.rfind("|", 0, position + 1)
        since.append(position - last if last >= 0 else position + 1)
        tail = text[: position + 1]
        run.append(len(tail) - len(tail.rstrip("abcdefg")))
        paragraph = tail.removesuffix("\n").rpartition("\n\n")[2]
        line.append(0 if tail.endswith("\n\n") else paragraph.count("\n") + 1)
        odd += char == "|"
    np.testing.assert_array_equal(found["characters since the last “|”"].values, since)
    np.testing.assert_array_equal(found["position in a run: small letter"].values, run)
    np.testing.assert_array_equal(found["line of the paragraph"].values, line)
    after = [text.find("|", position) - position for position in range(text.rfind("|") + 1)]
    np.testing.assert_array_equal(found["characters to the next “|”"].values[: len(after)], after)


@given(st.text(st.sampled_from("ab \n\t'\"|:,;-1A“\\é\u202e\ud800\x1b"), max_size=300))
def test_every_text_has_a_structure_with_visible_names(text: str) -> None:
    for feature in read_structure(text * 4):
        assert feature.values.shape == (4 * len(text),)
        assert np.isfinite(feature.values.astype(np.float64)).all()
        assert (feature.values >= 0).all()
        assert feature.name.isprintable()
        assert feature.structure


@pytest.mark.parametrize("length", [7, 15, 36, 100])
def test_the_period_of_records_is_their_length(length: int) -> None:
    choose = random.Random(length)
    record = "".join(choose.choices("abcdef:;", k=length))
    text = "".join(
        "".join(char if choose.random() < 0.6 else choose.choice("abcdef:;") for char in record)
        for _ in range(4000 // length)
    )
    assert periods(text)[0] == length
    phase = by_name(text)[f"phase of a period of {length} characters"].values
    np.testing.assert_array_equal(phase, [i % length for i in range(len(text))])


def test_a_text_without_a_period_has_none() -> None:
    choose = random.Random(4)
    assert periods("".join(choose.choices("abcdefgh ", k=4000))) == []
    assert periods("ab" * 3) == []


# --- against luck ----------------------------------------------------------------------------


def walks(count: int, length: int, seed: int) -> Array:
    """Units (count, length) without a relation to any text: slow random curves."""
    steps = np.random.default_rng(seed).normal(size=(count, length))
    return np.asarray(steps.cumsum(1) - 0.9 * np.roll(steps, 5, 1).cumsum(1))


def units_of(rows: Array) -> dict[str, Array]:
    return {"h": np.asarray(rows.T[None], np.float32)}  # (1, N, D)


@pytest.mark.parametrize("fixed", [False, True])
def test_units_that_track_columns_are_found_and_others_are_not(fixed: bool) -> None:
    text, columns = table(250, fixed)
    ids, N = Vocab.of(text).encode(text), len(text)
    noise = np.random.default_rng(3).normal(size=(3, N))
    planted = 2.0 * (np.array(columns) == np.array([[1], [2], [3]])) + 0.4 * noise
    units = units_of(np.concatenate([walks(20, N, 5), planted]))
    untrained = [units_of(walks(20, N, seed)) for seed in (6, 7)]
    found = {each.feature: each for each in search(units, ids, read_structure(text), untrained)}
    for column in (1, 2, 3):
        each = found[f"column {column}, divided by “,”"]
        assert each.units[0].index == 19 + column
        assert each.discovery == (each.last_characters < 0.97)  # otherwise it needs no memory
    discoveries = [name for name in found if name.startswith("column") and found[name].discovery]
    assert [name[7] for name in sorted(discoveries)] == ["1", "3"]  # digits are in column 2 only
    only_walks = search(units_of(walks(23, N, 8)), ids, read_structure(text), untrained)
    assert len(only_walks) > 10
    assert [each.feature for each in only_walks if each.discovery] == []


def test_units_that_swing_with_the_period_by_luck_are_no_discoveries() -> None:
    text, _ = table(250, fixed=True)
    period = text.index("\n") + 1
    phase = np.arange(len(text)) % period

    def lucky(seed: int) -> dict[str, Array]:
        """64 units, each with a random value for each phase."""
        return units_of(np.random.default_rng(seed).normal(size=(64, period))[:, phase])

    ids, untrained = Vocab.of(text).encode(text), [lucky(seed) for seed in range(10)]
    for seed in (14, 15, 16):
        found = search(lucky(seed), ids, read_structure(text), untrained)
        assert len(found) > 10
        assert [each.feature for each in found if each.discovery] == []


@pytest.mark.parametrize(
    ("kind", "which"),
    [*itertools.product(("gru", "lstm"), ("table", "fixed", "tunes")), ("gpt", "tunes")],
)
def test_an_untrained_network_has_no_discoveries_in_a_structured_text(
    kind: str, which: str
) -> None:
    text = tunes(150)[0] if which == "tunes" else table(200, which == "fixed")[0]
    vocab = Vocab.of(text)
    ids = vocab.encode(text)

    def fresh(seed: int) -> CharModel:
        size = {"n_embd": 32, "context": 64} if kind == "gpt" else {"hidden_size": 32}
        return build_model(
            model_config(size | {"kind": kind, "n_layer": 2}), len(vocab), seed
        ).eval()

    untrained = [record_units(fresh(seed), ids) for seed in range(10)]
    for seed in (101, 102, 103):
        found = search(record_units(fresh(seed), ids), ids, read_structure(text), untrained)
        assert len(found) > 10
        assert [each.feature for each in found if each.discovery] == []
