"""Statistics of a text, compared with counts by hand."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import findings, stats
from charlm.data.yardsticks import compressed_bits, entropies, ngram_bits

WORDS = "the cat sat on the mat, and the dog sat on the cät; " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("stats")


def measure(text: str | bytes, folder: Path, **settings: Any) -> dict[str, Any]:
    path = folder / "text.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return stats.measure(DataConfig.model_validate({"path": str(path)} | settings))


def oddities_of(found: dict[str, Any]) -> dict[str, int]:
    return {oddity["kind"]: oddity["count"] for oddity in found["oddities"]}


def ids_of(text: str) -> np.ndarray[Any, Any]:
    return np.array([ord(char) for char in text], np.uint32)


def test_the_statistics_of_a_small_text(tmp_path: Path) -> None:
    text = "Zoë, Zoë!\r\nÀ 🐍\n"
    found = measure(text, tmp_path, val_fraction=0.25, test_fraction=0.25)
    del found["yardsticks"]
    oddities = found.pop("oddities")
    assert found == {
        "source": str(tmp_path / "text.txt"),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "unit": "char",
        "chars": 15,
        "utf8_bytes": 21,
        "lines": 2,
        "parts": {"train": 7, "val": 4, "test": 4},
        "distinct": 10,
        "most_frequent": "\n Zoë\r!,À🐍",  # of equal counts, the lower code point first
        "notices": [],
    }
    mixed = {"kind": "mixed line ends", "chars": "\r\n", "count": 1}
    assert mixed.items() <= oddities[0].items()
    assert "1 lines that end in LF alone" in oddities[0]["advice"]


@given(text=st.text("aé\r\n\u2019", min_size=1, max_size=30), chunk=st.integers(1, 6))
@example("a\r\n", 2)
@example("a\r\nb" * 5, 2)
def test_counts_do_not_depend_on_the_chunk_size(folder: Path, text: str, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "CHUNK_CHARS", chunk)
        patch.setattr(stats, "compressed_bits", lambda *_: {})  # they are slow
        found = measure(text, folder, val_fraction=0)
    crlf, lf, cr = text.count("\r\n"), text.count("\n"), text.count("\r")
    line_ends = {"mixed line ends" if lf > crlf else "CRLF line ends": crlf} if crlf else {}
    line_ends |= {"lone carriage returns": cr - crlf} if cr > crlf else {}
    kinds = ("mixed line ends", "CRLF line ends", "lone carriage returns")
    assert {k: n for k, n in oddities_of(found).items() if k in kinds} == line_ends
    assert (found["chars"], found["lines"]) == (len(text), lf)
    assert found["utf8_bytes"] == len(text.encode())
    ranked = sorted(set(text), key=lambda char: (-text.count(char), char))
    assert found["most_frequent"] == "".join(ranked)
    assert found["distinct"] == len(ranked)
    assert sum(found["parts"].values()) == len(text)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("val", [0.25, 0.5, 0.75])
def test_a_line_end_that_is_split_between_two_parts_is_still_one(
    tmp_path: Path, val: float
) -> None:
    assert oddities_of(measure("a\r\nb", tmp_path, val_fraction=val)) == {"CRLF line ends": 1}


def test_the_forty_most_frequent_characters_are_shown(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i) * (60 - i) for i in range(50))
    found = measure(text, tmp_path)
    assert found["most_frequent"] == "".join(chr(0x4E00 + i) for i in range(40))
    assert found["distinct"] == 50


def test_all_characters_are_measured_even_with_a_limited_vocabulary(tmp_path: Path) -> None:
    plain = measure(WORDS, tmp_path)
    assert measure(WORDS, tmp_path, vocab_min_count=50, vocab_size=5) == plain
    assert plain["distinct"] == len(set(WORDS))


def test_a_text_of_bytes_is_measured_in_bytes(tmp_path: Path) -> None:
    content = "é\r\n\u200b".encode() * 50 + b"\xff\x00\r"
    found = measure(content, tmp_path, unit="byte")
    n = len(content)
    assert (found["unit"], found["chars"], found["utf8_bytes"]) == ("byte", n, n)
    assert (found["lines"], found["distinct"]) == (50, len(set(content)))
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    ranked = sorted(Counter(content).items(), key=lambda pair: (-pair[1], pair[0]))
    assert found["most_frequent"] == "".join(chr(byte) for byte, _ in ranked)
    train = content[: int(0.9 * n)]
    assert found["yardsticks"]["gzip"] == 8 * len(gzip.compress(train, 9)) / len(train)
    assert json.loads(json.dumps(found)) == found


def test_bytes_have_no_oddities(tmp_path: Path) -> None:
    """The advice for oddities names settings that are for characters only."""
    content = "é\r\n\u200b".encode() * 50 + b"\xff\x00\r"
    assert measure(content, tmp_path, unit="byte")["oddities"] == []


# --- yardsticks ------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_train", "max_val"), [(10**9, 10**9), (300, 50)])
def test_yardsticks_use_the_training_part_and_the_validation_text_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_train: int, max_val: int
) -> None:
    monkeypatch.setattr(stats, "MAX_TRAIN_CHARS", max_train)
    monkeypatch.setattr(stats, "MAX_VAL_CHARS", max_val)
    text = WORDS[:1000]
    train = text[:600][-max_train:]
    val = text[600:900][:max_val]
    found = measure(text, tmp_path, val_fraction=0.3, test_fraction=0.1)["yardsticks"]
    assert (found.pop("train_chars"), found.pop("val_chars")) == (len(train), len(val))
    assert found.pop("entropy") == pytest.approx(entropies(ids_of(train)))
    bits = ngram_bits(ids_of(train), ids_of(val), 8)
    best = found.pop("ngram")
    assert best["bits_per_char"] == pytest.approx(min(bits))
    assert bits[best["order"]] == min(bits)
    assert found == compressed_bits(train.encode(), len(train))


def test_the_lowest_of_equally_good_orders_is_reported(tmp_path: Path) -> None:
    found = measure("a" * 100, tmp_path)["yardsticks"]
    assert found["ngram"] == {"order": 0, "bits_per_char": 0.0}


def test_yardsticks_without_a_validation_part_or_a_training_part(tmp_path: Path) -> None:
    found = measure(WORDS, tmp_path, val_fraction=0)["yardsticks"]
    assert found.keys() == {"train_chars", "val_chars", "entropy", "gzip", "bzip2", "xz"}
    found = measure("a", tmp_path, val_fraction=0.9)["yardsticks"]
    assert found == {"train_chars": 0, "val_chars": 1}


def test_separate_texts_are_measured_together(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("zzz\n")
    found = measure("abab\n" * 10, tmp_path, val_path=str(tmp_path / "val.txt"))
    assert (found["chars"], found["lines"], found["distinct"]) == (54, 11, 4)
    assert found["parts"] == {"train": 50, "val": 4, "test": 0}
    assert found["yardsticks"]["ngram"]["bits_per_char"] > math.log2(4)
