"""Characters to raw ids and files: decoding them gives the text again."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import DataConfig
from charlm.data import build as build_module
from charlm.data import sources as sources_module
from charlm.data.build import IDS, STARTS, Facts, build
from charlm.data.encode import Encoder
from charlm.data.sources import Source, stamp_of
from charlm.errors import DataError

ALPHABET = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")
TEXT = st.text(ALPHABET, min_size=1)
WIDE = "".join(map(chr, range(0x10000, 0x10000 + 70_000)))  # all different


def decoded(chars: str, ids: Iterable[int]) -> str:
    return "".join(chars[i] for i in ids)


# --- the encoder -----------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=9))
def test_raw_ids_decode_to_their_characters_and_are_counted(pieces: list[str]) -> None:
    encoder, text, ids = Encoder(), "".join(pieces), list[int]()
    for piece in pieces:
        ids += encoder.add(piece).tolist()
    assert decoded(encoder.chars, ids) == text
    assert len(set(encoder.chars)) == len(encoder.chars)
    assert dict(zip(encoder.chars, encoder.counts, strict=True)) == Counter(text)


@pytest.mark.parametrize("text", ["", "\xff", "\0", "a\xff\xff", "abcab", "aé" * 1001 + "\xff"])
@pytest.mark.parametrize("more", ["", "\u0100", "\U0010ffff"])
def test_pieces_of_every_length_are_counted(text: str, more: str) -> None:
    encoder = Encoder()
    for piece in (text, "", text + more):
        assert len(encoder.add(piece)) == len(piece)
    assert dict(zip(encoder.chars, encoder.counts, strict=True)) == Counter(text + text + more)


@pytest.mark.parametrize(("size", "bits"), [(256, 8), (257, 16), (65_536, 16), (65_537, 32)])
@pytest.mark.parametrize("step", [100_000, 255])
def test_raw_ids_have_the_smallest_type_that_holds_all_so_far(
    size: int, bits: int, step: int
) -> None:
    encoder, text = Encoder(), WIDE[:size]
    for start in range(0, size, step):
        ids = encoder.add(text[start : start + step])
        assert ids.dtype == np.min_scalar_type(min(start + step, size) - 1)
    assert ids.dtype == f"uint{bits}"
    again = encoder.add(text)
    assert again.dtype == f"uint{bits}"
    assert decoded(encoder.chars, again) == text


# --- the files -------------------------------------------------------------------------------


def write(folder: Path, raw: bytes, chunk: int = 1 << 20, **options: Any) -> Facts:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources_module, "CHUNK", chunk)
        patch.setattr(build_module, "CHUNK", chunk)
        source = Source("text", lambda: io.BytesIO(raw))
        return build(folder, [source], DataConfig(path="x", **options))


def text_in(folder: Path, facts: Facts) -> str:
    return decoded(facts.chars, np.fromfile(folder / IDS, facts.dtype))


@given(text=TEXT, chunk=st.integers(1, 7), encoding=st.sampled_from(["utf-8", "utf-16"]))
def test_the_files_decode_to_the_text(
    tmp_path_factory: pytest.TempPathFactory, text: str, chunk: int, encoding: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "written"
    facts = write(folder, text.encode(encoding), chunk, encoding=encoding)
    assert text_in(folder, facts) == text
    assert dict(zip(facts.chars, facts.counts, strict=True)) == Counter(text)
    assert facts.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert [path.name for path in folder.iterdir()] == [IDS] == list(facts.files)
    assert facts.files[IDS].sha256 == hashlib.sha256((folder / IDS).read_bytes()).hexdigest()
    assert facts.files[IDS].stamp == stamp_of(folder / IDS)


@given(raw=st.binary(min_size=1), chunk=st.integers(1, 7))
def test_any_bytes_can_be_encoded(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, chunk: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "bytes"
    facts = write(folder, raw, chunk, unit="byte")
    assert text_in(folder, facts).encode("latin-1") == raw
    assert facts.sha256 == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("ab" * 500 + WIDE[:256] + "ba" * 50, 16),
        ("ab" * 500 + WIDE[:254] + "ba" * 50, 8),
        ("ab" * 500 + WIDE[:66_000] + "ab" * 50, 32),
        (WIDE[:300] * 3 + WIDE[:66_000], 32),  # widened twice
    ],
)
@pytest.mark.parametrize("chunk", [1 << 20, 64])
def test_a_file_is_widened_in_the_middle(tmp_path: Path, text: str, bits: int, chunk: int) -> None:
    facts = write(tmp_path, text.encode(), chunk)
    assert facts.dtype == f"uint{bits}"
    assert text_in(tmp_path, facts) == text
    assert [path.name for path in tmp_path.iterdir()] == [IDS]


@given(
    lines=st.lists(st.text(ALPHABET.filter(lambda char: char != "\n"), max_size=4), max_size=8),
    ended=st.booleans(),
    chunk=st.integers(1, 7),
)
def test_every_line_of_a_list_that_is_not_blank_is_written_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ended: bool, chunk: int
) -> None:
    folder, text = tmp_path_factory.getbasetemp() / "lines", "\n".join(lines) + "\n" * ended
    documents = sorted(line + "\n" for line in lines if line)
    if not documents:
        with pytest.raises(DataError, match=r"blank|empty"):
            write(folder, text.encode(), chunk, documents="lines")
        return
    facts = write(folder, text.encode(), chunk, documents="lines")
    written, starts = text_in(folder, facts), np.fromfile(folder / STARTS, "int64").tolist()
    assert sorted(written[start:end] for start, end in pairwise(starts)) == documents
    assert (starts[0], starts[-1]) == (0, len(written))
    assert dict(zip(facts.chars, facts.counts, strict=True)) == Counter(written)
    assert sorted(path.name for path in folder.iterdir()) == [IDS, STARTS] == sorted(facts.files)


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf"])
def test_an_empty_text_is_refused(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(DataError, match=r"^text: this text is empty$"):
        write(tmp_path, raw)
